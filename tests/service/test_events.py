import json
import threading

from sparring.contract.states import Progress
from sparring.storage import attempts, jobs

from .conftest import Served, submit


def streamed(text: str) -> list[dict[str, str]]:
    """The events of a stream as their fields."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]


def test_a_finished_job_is_told_from_the_start_and_from_where_it_broke_off(served: Served) -> None:
    job = submit(served)
    jobs.cancel(served.engine, "default", job.id)
    jobs.retry(served.engine, "default", job.id)
    jobs.cancel(served.engine, "default", job.id)
    answer = served.http.get(f"/v1/jobs/{job.id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = streamed(answer.text)
    assert [json.loads(event["data"])["state"] for event in events] == ["queued", "cancelled", "queued", "cancelled"]
    assert [event["event"] for event in events] == ["state"] * 4
    assert [int(event["id"]) for event in events] == [json.loads(event["data"])["id"] for event in events]
    rest = served.http.get(f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": events[1]["id"]})
    assert streamed(rest.text) == events[2:]
    nothing = served.http.get(f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": events[-1]["id"]})
    assert streamed(nothing.text) == []


def test_a_running_job_is_followed_to_its_end(served: Served) -> None:
    job = submit(served)
    queued = threading.Event()

    def work() -> None:
        queued.wait(20)
        attempts.claim(served.engine, job.id, 1, worker="w", lease=60)
        attempts.beat(served.engine, job.id, 1, lease=60, progress=Progress(phase="attack", done=1, total=2))
        attempts.finish(served.engine, job.id, 1, state="succeeded")

    worker = threading.Thread(target=work)
    worker.start()
    seen = []
    with served.http.stream("GET", f"/v1/jobs/{job.id}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                seen.append(json.loads(line[6:]))
                queued.set()
    worker.join()
    assert [(event["kind"], event["state"]) for event in seen] == [
        ("state", "queued"),
        ("state", "running"),
        ("progress", "running"),
        ("state", "succeeded"),
    ]
    assert seen[2]["progress"]["done"] == 1


def test_no_stream_for_what_is_not_there(shared: Served) -> None:
    answer = shared.http.get("/v1/jobs/job_00000000000000000000/events")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert shared.http.get("/v1/jobs/x/events", headers={"Last-Event-ID": "-1"}).status_code in (404, 422)
