"""The Python SDK: models and datasets up, jobs in, reports out."""

import hashlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import TypeAdapter

from sparring.contract.endpoints import AnyEndpoint
from sparring.contract.gates import Accepting, BaselineInfo, BaselineLine, GateInfo, GateLine, GateRun
from sparring.contract.jobs import AnyJob
from sparring.contract.report import Report
from sparring.contract.resources import (
    AttackInfo,
    DatasetInfo,
    DefenseInfo,
    EventInfo,
    JobInfo,
    KeyInfo,
    ModelInfo,
    NewKey,
    Page,
    SuiteInfo,
    WorkerInfo,
)
from sparring.contract.retrained import REPORT, RetrainReport
from sparring.contract.specs import DataSpec, ModelReading, ModelSpec
from sparring.contract.states import FINAL, State
from sparring.contract.verdict import Baseline
from sparring.contract.webhooks import NewWebhook, WebhookInfo
from sparring.errors import ServiceAway, UsageProblem
from sparring.wire import Wire, messages

Info = TypeVar("Info", ModelInfo, DatasetInfo)
Spec = TypeVar("Spec", ModelSpec, DataSpec)
Item = TypeVar("Item")

DEFAULT_URL = "http://127.0.0.1:8787"
CHUNK = 1 << 20
PATIENCE = 8
"""Times in a row that a broken event stream is taken up again, with growing pauses: about half a minute."""


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _part(text: str) -> str:
    if not re.search(r"[^.]", text):  # what would name another address
        raise UsageProblem(f"{text!r} is no id")
    return quote(text, safe="")


def _comma(value: object) -> object:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _pages(wire: Wire, page: TypeAdapter[Page[Item]], path: str, **params: Any) -> Iterator[Item]:
    cursor = None
    while True:
        found = wire.ask(page, "GET", path, params={**params, "cursor": cursor})
        yield from found.items
        cursor = found.next_cursor
        if cursor is None:
            return


def _download(wire: Wire, path: str, dest: str | Path) -> Path:
    target = Path(dest)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    with wire.stream("GET", path) as response:
        try:
            with part.open("xb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
            part.replace(target)
        except OSError as error:
            raise UsageProblem(f"{target} cannot be written: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)
    return target


class Uploads(Generic[Info, Spec]):
    """Models or datasets of the project."""

    def __init__(self, wire: Wire, path: str, info: TypeAdapter[Info], page: TypeAdapter[Page[Info]]) -> None:
        self._wire, self._path = wire, path
        self._info: TypeAdapter[Info] = info
        self._page: TypeAdapter[Page[Info]] = page

    def upload(self, path: str | Path, name: str | None = None, spec: Spec | None = None) -> Info:
        """Upload a file; the same bytes again take no more room.

        Args:
            path: the file.
            name: what to call it; the file's name unless given, with what a name may not hold replaced.
            spec: what is declared about it.

        Raises:
            UsageProblem: there is no such file, or it cannot be read.
            ApiError: the service refuses it, such as a format that runs code when opened.
        """
        file = Path(path)
        try:
            digest, size = _digest(file), file.stat().st_size
        except OSError as error:
            raise UsageProblem(f"{file} cannot be read: {error.strerror}") from error
        declared = {key: _comma(value) for key, value in (spec.model_dump(mode="json") if spec else {}).items()}
        params = {"name": name or re.sub(r"[^\w .+\-]", "_", file.name)[:100], "sha256": digest, **declared}
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        return self._wire.ask(self._info, "POST", self._path, params=params, headers=headers, content=_chunks(file))

    def list(self) -> Iterator[Info]:
        """All of them, the newest first; pages are fetched as needed."""
        return _pages(self._wire, self._page, self._path)

    def get(self, ref: str) -> Info:
        """One by id or sha256."""
        return self._wire.ask(self._info, "GET", f"{self._path}/{_part(ref)}")

    def download(self, ref: str, dest: str | Path) -> Path:
        """Its bytes as they were uploaded, to the path `dest`; a file there is replaced once all are here.

        Raises:
            UsageProblem: `dest` cannot be written.
        """
        return _download(self._wire, f"{self._path}/{_part(ref)}/content", dest)

    def delete(self, ident: str) -> None:
        """Delete one; ApiError 409 while a job that is not finished needs it."""
        self._wire.request("DELETE", f"{self._path}/{_part(ident)}")


class Models(Uploads[ModelInfo, ModelSpec]):
    """Models of the project: files and endpoints."""

    def register(self, endpoint: AnyEndpoint, name: str = "model", spec: ModelReading | None = None) -> ModelInfo:
        """Register an HTTP endpoint as a model; it is not asked anything yet.

        Args:
            endpoint: how it is asked. Secrets stand in it by name alone.
            name: what to call it.
            spec: what else is declared about it; `classes` is needed where it gives labels.

        Raises:
            ApiError: it is not among the endpoints that the project may have asked.
        """
        declared = {key: _comma(value) for key, value in (spec or ModelReading()).model_dump(mode="json", exclude={"endpoint"}).items()}
        headers = {"Content-Type": "application/json"}
        content = endpoint.model_dump_json()
        return self._wire.ask(self._info, "POST", self._path, params={"name": name, **declared}, headers=headers, content=content)


class Jobs:
    """Jobs of the project."""

    _info = TypeAdapter(JobInfo)
    _page = TypeAdapter(Page[JobInfo])

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def submit(self, job: AnyJob, key: str | None = None) -> JobInfo:
        """Submit a job. The same idempotency key with the same job gives the job that was submitted before; a fresh key unless given."""
        headers = {"Idempotency-Key": key or uuid.uuid4().hex, "Content-Type": "application/json"}
        return self._wire.ask(self._info, "POST", "/v1/jobs", headers=headers, content=job.model_dump_json())

    def get(self, job_id: str) -> JobInfo:
        """A job and where it stands."""
        return self._wire.ask(self._info, "GET", f"/v1/jobs/{_part(job_id)}")

    def list(self, *, key: str | None = None, state: State | None = None) -> Iterator[JobInfo]:
        """All jobs, the newest first; of one idempotency key or state if asked."""
        return _pages(self._wire, self._page, "/v1/jobs", key=key, state=state)

    def events(self, job_id: str, after: int = 0) -> Iterator[EventInfo]:
        """What happens to a job, until it has ended. A stream that breaks off is taken up again after the last event.

        Raises:
            ServiceAway: the service was away for about half a minute.
        """
        failures = 0
        while True:
            headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
            try:
                with self._wire.stream("GET", f"/v1/jobs/{_part(job_id)}/events", headers=headers) as response:
                    for message in messages(response.iter_bytes()):
                        event = EventInfo.model_validate_json(message.data)
                        after, failures = event.id, 0
                        yield event
                if self.get(job_id).state in FINAL:
                    return
            except ServiceAway:
                failures += 1
                if failures > PATIENCE:
                    raise
            time.sleep(min(0.1 * 2**failures, 8))

    def wait(self, job_id: str, on_event: Callable[[EventInfo], None] | None = None) -> JobInfo:
        """Wait until a job has ended, however it ends; `on_event` hears of everything on the way."""
        for event in self.events(job_id):
            if on_event:
                on_event(event)
        return self.get(job_id)

    def cancel(self, job_id: str) -> JobInfo:
        """Cancel a job; ApiError 409 when it has ended already."""
        return self._wire.ask(self._info, "POST", f"/v1/jobs/{_part(job_id)}/cancel")

    def retry(self, job_id: str) -> JobInfo:
        """Queue a failed, cancelled or timed out job anew; ApiError 409 for any other."""
        return self._wire.ask(self._info, "POST", f"/v1/jobs/{_part(job_id)}/retry")

    def delete(self, job_id: str) -> None:
        """Forget a job with its report; ApiError 409 while it is queued or running."""
        self._wire.request("DELETE", f"/v1/jobs/{_part(job_id)}")

    def report(self, job_id: str) -> Report:
        """The report of a job that attacks; ApiError 409 while it is not finished, and when it failed.

        Raises:
            UsageProblem: the job has trained; `retrained` is its report.
        """
        found = self.any_report(job_id)
        if isinstance(found, RetrainReport):
            raise UsageProblem(f"{job_id} has trained a model, and its report is of another kind", "Ask for retrained()")
        return found

    def retrained(self, job_id: str) -> RetrainReport:
        """The report of a job that trains; ApiError as for `report`.

        Raises:
            UsageProblem: the job has only attacked.
        """
        found = self.any_report(job_id)
        if isinstance(found, Report):
            raise UsageProblem(f"{job_id} has trained nothing", "Ask for report()")
        return found

    def any_report(self, job_id: str) -> Report | RetrainReport:
        """The report of a job of any kind; ApiError as for `report`."""
        return self._wire.ask(REPORT, "GET", f"/v1/jobs/{_part(job_id)}/report.json")

    def artifact(self, job_id: str, name: str, dest: str | Path) -> Path:
        """Download a file the job left, such as `rows.csv`, to the path `dest`; a file there is replaced once all bytes are here.

        Raises:
            UsageProblem: `dest` cannot be written.
        """
        return _download(self._wire, f"/v1/jobs/{_part(job_id)}/artifacts/{_part(name)}", dest)


class Gates:
    """Gates that were run on models of the project."""

    _info = TypeAdapter(GateInfo)
    _page = TypeAdapter(Page[GateLine])

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def add(self, run: GateRun) -> GateInfo:
        """Keep a verdict with the policy it was held against."""
        headers = {"Content-Type": "application/json"}
        return self._wire.ask(self._info, "POST", "/v1/gates", headers=headers, content=run.model_dump_json())

    def list(self, *, name: str | None = None) -> Iterator[GateLine]:
        """All of them, the newest first; of models of one name if asked."""
        return _pages(self._wire, self._page, "/v1/gates", name=name)

    def get(self, gate_id: str) -> GateInfo:
        """Verdict and policy of one."""
        return self._wire.ask(self._info, "GET", f"/v1/gates/{_part(gate_id)}")


class KeptBaselines:
    """Baselines that the service keeps."""

    _info = TypeAdapter(BaselineInfo)
    _page = TypeAdapter(Page[BaselineLine])

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def accept(self, baselines: Sequence[Baseline]) -> tuple[BaselineLine, ...]:
        """Put them in the places of those of the same keys."""
        headers = {"Content-Type": "application/json"}
        content = Accepting(baselines=tuple(baselines)).model_dump_json()
        return self._wire.ask(TypeAdapter(tuple[BaselineLine, ...]), "PUT", "/v1/baselines", headers=headers, content=content)

    def list(self, *, branch: str | None = None, model: str | None = None, data: str | None = None) -> Iterator[BaselineLine]:
        """All of them without their rows, the last accepted first; of one branch, model name or digest of the data if asked."""
        return _pages(self._wire, self._page, "/v1/baselines", branch=branch, model=model, data=data)

    def get(self, baseline_id: str) -> BaselineInfo:
        """What became of every row of one."""
        return self._wire.ask(self._info, "GET", f"/v1/baselines/{_part(baseline_id)}")


class Keys:
    """API keys of the project."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def create(self, name: str, expires: datetime | None = None) -> NewKey:
        """Make a key; its secret is shown this once."""
        body = {"name": name, **({"expires": expires.isoformat()} if expires else {})}
        return self._wire.ask(TypeAdapter(NewKey), "POST", "/v1/keys", json=body)

    def list(self) -> tuple[KeyInfo, ...]:
        """All keys, without their secrets."""
        return self._wire.ask(TypeAdapter(tuple[KeyInfo, ...]), "GET", "/v1/keys")

    def revoke(self, key_id: str) -> None:
        """From now on the key opens nothing."""
        self._wire.request("DELETE", f"/v1/keys/{_part(key_id)}")


class Webhooks:
    """Who is told of the end of a job of the project."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def create(self, url: str) -> NewWebhook:
        """Have the end of every job posted to an address; the secret that signs what is sent is shown this once.

        Raises:
            ApiError: it is no address, or one that the service posts nothing to.
        """
        return self._wire.ask(TypeAdapter(NewWebhook), "POST", "/v1/webhooks", json={"url": url})

    def list(self) -> tuple[WebhookInfo, ...]:
        """All of them, without their secrets."""
        return self._wire.ask(TypeAdapter(tuple[WebhookInfo, ...]), "GET", "/v1/webhooks")

    def delete(self, webhook_id: str) -> None:
        """Nothing is posted there any more."""
        self._wire.request("DELETE", f"/v1/webhooks/{_part(webhook_id)}")


class Client:
    """A service, for `with`.

    Args:
        url: address of the service; SPARRING_URL unless given, else http://127.0.0.1:8787.
        key: API key; SPARRING_KEY unless given.
        transport: how requests travel, for tests.
    """

    def __init__(self, url: str | None = None, key: str | None = None, *, transport: httpx2.BaseTransport | None = None) -> None:
        wire = Wire(url or os.environ.get("SPARRING_URL") or DEFAULT_URL, key or os.environ.get("SPARRING_KEY"), transport)
        self._wire = wire
        self.url = wire.url
        self.models = Models(wire, "/v1/models", TypeAdapter(ModelInfo), TypeAdapter(Page[ModelInfo]))
        self.datasets: Uploads[DatasetInfo, DataSpec] = Uploads(
            wire, "/v1/datasets", TypeAdapter(DatasetInfo), TypeAdapter(Page[DatasetInfo])
        )
        self.jobs = Jobs(wire)
        self.gates = Gates(wire)
        self.baselines = KeptBaselines(wire)
        self.keys = Keys(wire)
        self.webhooks = Webhooks(wire)

    def attacks(self) -> tuple[AttackInfo, ...]:
        """Every attack a job may name."""
        return self._wire.ask(TypeAdapter(tuple[AttackInfo, ...]), "GET", "/v1/attacks")

    def defenses(self) -> tuple[DefenseInfo, ...]:
        """Every defense a job may name."""
        return self._wire.ask(TypeAdapter(tuple[DefenseInfo, ...]), "GET", "/v1/defenses")

    def suites(self) -> tuple[SuiteInfo, ...]:
        """The pinned lists of attacks."""
        return self._wire.ask(TypeAdapter(tuple[SuiteInfo, ...]), "GET", "/v1/suites")

    def workers(self) -> tuple[WorkerInfo, ...]:
        """Workers seen lately."""
        return self._wire.ask(TypeAdapter(tuple[WorkerInfo, ...]), "GET", "/v1/workers")

    def version(self) -> dict[str, str]:
        """What runs there."""
        return self._wire.ask(TypeAdapter(dict[str, str]), "GET", "/version")

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
