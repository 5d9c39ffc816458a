"""Submit a job by queue, with RQ alone: nothing of Sparring is imported, only `redis` and `rq` are needed.

    export SPARRING_URL=http://127.0.0.1:8787 SPARRING_KEY=svc_…
    export REDIS_URL=redis://127.0.0.1:6379/0     # of `sparring up`: the unix://… it prints
    python examples/queue_submit.py job.json --out report.json

`job.json` is a job as the HTTP API takes it; model and data are named by id or by the sha256 of what was uploaded:

    {"kind": "evaluate", "model": "sha256:…", "data": "sha256:…", "threats": [{"norm": "linf", "eps": "8/255"}], "suite": "quick"}
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

INTAKE = "sparring:intake"
ENTRY = "sparring.workers.door.submit"
FINAL = {"succeeded", "failed", "cancelled", "timed_out"}
POLL = 0.5
"""Seconds between two looks."""


def enqueue(redis_url: str, job: dict[str, Any]) -> Job:
    """Puts the job on the public queue. The message's id is the idempotency key: the same id never makes two jobs."""
    try:
        queue = Queue(INTAKE, connection=Redis.from_url(redis_url), serializer=JSONSerializer)
        return queue.enqueue(ENTRY, job)
    except (RedisError, ValueError) as error:
        hint = "name the service's own in REDIS_URL or --redis; `sparring up` prints that of its queue, and keeps it in stack.json"
        raise SystemExit(f"the queue cannot be reached: {str(error).rstrip('.')}; {hint}") from None


def get(url: str, key: str) -> bytes:
    """The body of an answer of the API."""
    request = Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urlopen(request, timeout=30) as answer:
            body: bytes = answer.read()
            return body
    except HTTPError as error:
        raise SystemExit(f"{url} answered {error.code}: {error.read().decode(errors='replace')}") from None
    except URLError as error:
        raise SystemExit(f"{url} cannot be reached: {error.reason}; set SPARRING_URL, as `sparring up` prints it") from None


def accepted(message: Job, url: str, key: str) -> str:
    """Waits until the service has taken the job on; gives its id. Exits with the service's words if it refuses."""
    while True:
        found = json.loads(get(f"{url}/v1/jobs?key={quote(message.id)}", key))["items"]
        if found:
            return str(found[0]["id"])
        if message.get_status(refresh=True) == "failed":
            result = message.latest_result()
            words = (result.exc_string or "").strip() if result else ""
            raise SystemExit(f"the service refused the job: {words.splitlines()[-1] if words else 'see its log'}")
        time.sleep(POLL)


def finished(id: str, url: str, key: str) -> dict[str, Any]:
    """Waits until the job has come to its end."""
    while True:
        job: dict[str, Any] = json.loads(get(f"{url}/v1/jobs/{id}", key))
        if job["state"] in FINAL:
            return job
        time.sleep(POLL)


def main() -> None:
    """Submits, waits, and writes the report."""
    parser = argparse.ArgumentParser(description="Submit a job by queue and download its report.")
    parser.add_argument("job", type=Path, help="the job as JSON")
    parser.add_argument("--redis", default=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"), help="default: $REDIS_URL")
    parser.add_argument("--url", default=os.environ.get("SPARRING_URL", "http://127.0.0.1:8787"), help="default: $SPARRING_URL")
    parser.add_argument("--key", default=os.environ.get("SPARRING_KEY", ""), help="API key; default: $SPARRING_KEY")
    parser.add_argument("--out", type=Path, default=Path("report.json"))
    given = parser.parse_args()

    url = given.url.rstrip("/")
    try:
        job = json.loads(given.job.read_text())
    except (OSError, ValueError) as error:
        raise SystemExit(f"{given.job} holds no job: {error}") from None
    message = enqueue(given.redis, job)
    print(f"message {message.id} is on {INTAKE}", file=sys.stderr)
    id = accepted(message, url, given.key)
    print(f"job {id} was accepted", file=sys.stderr)
    ended = finished(id, url, given.key)
    if ended["state"] != "succeeded":
        raise SystemExit(f"job {id} {ended['state']}: {json.dumps(ended['reason'])}")
    given.out.write_bytes(get(f"{url}/v1/jobs/{id}/report.json", given.key))
    print(given.out)


if __name__ == "__main__":
    main()
