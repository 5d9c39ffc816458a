"""The health of a worker and of the dispatcher, on a real Redis and real records."""

import os
import subprocess
import sys
from pathlib import Path

from redis import Redis
from rq import Worker
from sqlalchemy import Engine

from sparring.contract.jobs import JOB
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.storage import jobs, outbox, uploads
from sparring.storage.artifacts import Blob
from sparring.workers.healthcheck import dispatcher_fault, worker_fault


def waiting_job(engine: Engine) -> str:
    blob = Blob("0" * 64, 1)
    model = uploads.add_model(engine, project="default", name="m", blob=blob, format="pt2", spec=ModelSpec())
    data = uploads.add_dataset(engine, project="default", name="d", blob=blob, format="npz", spec=DataSpec())
    wanted = {"kind": "evaluate", "model": model.id, "data": data.id, "threats": [{"norm": "linf", "eps": "8/255"}]}
    return jobs.accept(engine, JOB.validate_python(wanted))[0].id


def test_a_dispatcher_that_passes_nothing_on_is_ill(sqlite_engine: Engine):
    assert dispatcher_fault(sqlite_engine, patience=0) is None
    id = waiting_job(sqlite_engine)
    assert "1 jobs wait" in dispatcher_fault(sqlite_engine, patience=0)
    outbox.sent(sqlite_engine, id, 1)
    assert dispatcher_fault(sqlite_engine, patience=0) is None


def test_a_worker_is_well_while_it_is_registered(redis: Redis):
    assert "no worker of" in worker_fault(redis)
    worker = Worker(["sparring:cpu"], connection=redis, name="one")
    worker.register_birth()
    worker.heartbeat(120)
    assert worker_fault(redis) is None


def test_without_redis_it_says_so(tmp_path: Path):
    environment = os.environ | {"SPARRING_REDIS_URL": f"unix://{tmp_path}/nobody.sock", "SPARRING_DATA": str(tmp_path)}
    command = [sys.executable, "-P", "-m", "sparring.workers.healthcheck", "worker"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Redis cannot be reached")
