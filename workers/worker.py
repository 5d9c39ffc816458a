"""The worker: an RQ parent that forks a horse per job and keeps one warm runner ahead.

The parent imports no torch and opens no database: what OpenMP or an SQL engine leaves behind would hang a forked child.
"""

import argparse
import logging
import os
import signal
import socket
from pathlib import Path
from types import FrameType
from typing import Any

import redis.exceptions
from rq import Queue, Worker
from rq.job import Job
from rq.serializers import JSONSerializer

from sparring.contract.queue import QUEUES
from sparring.storage import queue
from sparring.storage.settings import Settings
from sparring.workers import horse
from sparring.workers.process import cores, die_with_parent
from sparring.workers.spare import Stable

log = logging.getLogger(__name__)


def has_gpu() -> bool:
    """A GPU's device file is there and not hidden; nobody asks CUDA here."""
    return Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES", "all") not in ("", "-1")


class SparringWorker(Worker):
    """RQ's worker, but each horse is handed a warm runner, dies with its parent, and Redis going away stops nothing."""

    stable: Stable

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Fork the horse; it inherits the spare's socket, and the next spare is started."""
        runner = self.stable.ready()
        parent = os.getpid()
        pid = os.fork()
        os.environ["RQ_WORKER_ID"], os.environ["RQ_JOB_ID"] = self.name, job.id
        if pid == 0:
            os.setpgrp()
            die_with_parent(parent)
            horse.mount(runner, self.name)
            self.main_work_horse(job, queue)
            os._exit(0)
        self._horse_pid = pid
        self.procline(f"Forked {pid}")
        self.stable.handed_over()

    def maintain_heartbeats(self, job: Job) -> None:
        """RQ would quit, and take the horse along, when Redis is away at this moment; the job's truth is not in Redis."""
        try:
            super().maintain_heartbeats(job)
        except redis.exceptions.RedisError as error:
            log.warning("redis is away during %s: %s", job.id, error)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Stop after handing the running job back: the horse, told by SIGTERM, releases it with its shards kept."""
        if self.horse_pid:
            self.kill_horse(signal.SIGTERM)
        super().request_stop(signum, frame)


def run(device: str, name: str | None, processes: int) -> None:
    """Serve jobs until told to stop."""
    settings = Settings()
    gpu = device.startswith("cuda") or (device == "auto" and has_gpu())
    connection = queue.connect(settings.redis_url, blocking=True)
    names = [QUEUES["gpu"], QUEUES["cpu"]] if gpu else [QUEUES["cpu"]]
    queues = [queue.SafeQueue(each, connection=connection, job_class=queue.SafeJob, serializer=JSONSerializer) for each in names]
    options: dict[str, Any] = {"worker_ttl": queue.WORKER_TTL, "job_monitoring_interval": 5, "maintenance_interval": 60}
    worker = SparringWorker(
        queues,
        name=name or f"{socket.gethostname()}-{os.getpid()}",
        connection=connection,
        job_class=queue.SafeJob,
        queue_class=queue.SafeQueue,
        serializer=JSONSerializer,
        **options,
    )
    worker.stable = Stable(device, processes)
    worker.stable.ready()
    worker.work(logging_level="INFO")


def main() -> None:
    """`python -P -m sparring.workers.worker`."""
    parser = argparse.ArgumentParser(prog="sparring.workers.worker", description="Serve jobs from the queue.")
    parser.add_argument("--device", default="auto", help="auto, cpu, or cuda:N")
    parser.add_argument("--name", default=None, help="unique name of this worker")
    parser.add_argument("--processes", type=int, default=cores(), help="row processes of a CPU runner")
    given = parser.parse_args()
    os.umask(0o077)
    run(given.device, given.name, given.processes)


if __name__ == "__main__":
    main()
