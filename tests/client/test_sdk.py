import hashlib

import httpx2
import pytest

import sparring
from sparring import sdk
from sparring.contract.jobs import Evaluate
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.contract.states import Reason
from sparring.contract.threat import Threat
from sparring.errors import ApiError, ServiceAway, UsageProblem
from sparring.storage import attempts
from tests.client.conftest import FILES
from tests.reports import factory


def a_job(client, files, **changes):
    model, data = client.models.upload(files[0]), client.datasets.upload(files[1])
    return Evaluate(model=model.id, data=data.id, threats=(Threat(norm="linf", eps="8/255"),), **changes)


def test_client_is_exported():
    assert sparring.Client is sdk.Client
    with pytest.raises(AttributeError, match="nothing"):
        _ = sparring.nothing


def test_uploads_carry_name_digest_and_what_is_declared(client, files):
    model = client.models.upload(files[0], spec=ModelSpec(mean=(0.5, 0.25), std=(0.2,), classes=10))
    data = client.datasets.upload(files[1], spec=DataSpec(bounds=(0, 1), layout="NHWC"))
    assert model.name == "net.pt2"
    assert model.sha256 == hashlib.sha256(files[0].read_bytes()).hexdigest()
    assert (model.spec.mean, model.spec.std, model.spec.classes) == ((0.5, 0.25), (0.2,), 10)
    assert data.name == "data set_1_.npz"
    assert (data.spec.bounds, data.spec.layout) == ((0, 1), "NHWC")
    assert client.datasets.upload(files[1], "other", DataSpec(bounds="none")).spec.bounds == "none"
    assert client.models.get(model.sha256) == client.models.get(model.id) == model


def test_the_same_file_again_takes_no_more_room(client, served, files):
    client.models.upload(files[0])
    before = served.stored()
    client.models.upload(files[0])
    assert served.stored() == before


def test_lists_run_over_all_pages(client, files, monkeypatch):
    made = [client.models.upload(files[0], f"m{at}").id for at in range(53)]
    assert [m.id for m in client.models.list()] == made[::-1]
    client.models.delete(made[0])
    assert made[0] not in {m.id for m in client.models.list()}


def test_a_file_that_is_not_there_is_a_usage_problem(client, tmp_path):
    with pytest.raises(UsageProblem, match="cannot be read"):
        client.models.upload(tmp_path / "none.pt2")


def test_what_the_service_refuses_is_told(client, tmp_path):
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(ApiError, match="would run code") as caught:
        client.models.upload(tmp_path / "model.pkl")
    assert caught.value.status == 422


def test_names_with_slashes_reach_nothing_else(client):
    with pytest.raises(ApiError) as caught:
        client.models.get("../jobs")
    assert caught.value.status == 404


def test_a_wrong_key_is_told(served):
    with pytest.raises(ApiError) as caught, sdk.Client(served.url, "svc_wrong") as stranger:
        list(stranger.models.list())
    assert (caught.value.status, caught.value.code) == (401, "unauthorized")


def test_address_and_key_come_from_the_environment(served, monkeypatch):
    monkeypatch.setenv("SPARRING_URL", served.url + "/")
    monkeypatch.setenv("SPARRING_KEY", served.key)
    with sdk.Client() as client:
        assert client.url == served.url
        assert [k.name for k in client.keys.list()] == ["tests"]
        assert "pgd" in {a.kind for a in client.attacks()}
        assert client.suites()[0].name == "quick"
        assert client.version()["api"] == "v1"


def test_keys_open_until_they_are_revoked(client, served):
    made = client.keys.create("ci")
    with sdk.Client(served.url, made.key) as other:
        assert list(other.jobs.list()) == []
        client.keys.revoke(made.id)
        with pytest.raises(ApiError, match="revoked"):
            list(other.jobs.list())


def test_a_job_runs_to_its_report(client, files, worker, tmp_path):
    job = client.jobs.submit(a_job(client, files))
    worker()
    told = []
    ended = client.jobs.wait(job.id, told.append)
    assert ended.state == "succeeded"
    assert [e.state for e in told if e.kind == "state"] == ["queued", "running", "succeeded"]
    assert [e.progress.done for e in told if e.kind == "progress"] == [5]
    assert client.jobs.report(job.id) == factory.report()
    out = client.jobs.artifact(job.id, "rows.csv", tmp_path / "rows.csv")
    assert out.read_bytes() == FILES["rows.csv"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".rows")] == []


def test_a_failed_job_has_its_reason_and_no_report(client, files, worker):
    job = client.jobs.submit(a_job(client, files))
    worker(reason=Reason(code="bad_model", message="The model has no output.", hint="Export it again."))
    assert client.jobs.wait(job.id).reason.code == "bad_model"
    with pytest.raises(ApiError, match="The model has no output"):
        client.jobs.report(job.id)
    assert client.jobs.retry(job.id).attempt == 2


def test_waiting_for_a_job_that_was_tried_again_goes_past_its_first_end(client, served, files, worker):
    job = client.jobs.submit(a_job(client, files))
    client.jobs.cancel(job.id)
    assert client.jobs.wait(job.id).state == "cancelled"
    client.jobs.retry(job.id)
    worker()
    assert client.jobs.wait(job.id).state == "succeeded"


def test_the_same_key_gives_the_same_job(client, files):
    job = a_job(client, files)
    first, second = (client.jobs.submit(job, key="once") for _ in range(2))
    assert first.id == second.id
    assert client.jobs.submit(job).id != first.id
    assert [j.id for j in client.jobs.list(key="once")] == [first.id]
    with pytest.raises(ApiError) as caught:
        client.jobs.submit(job.model_copy(update={"seed": 1}), key="once")
    assert caught.value.code == "idempotency-key-reused"


def test_a_finished_job_can_be_forgotten_and_a_running_one_not(client, served, files):
    job = client.jobs.submit(a_job(client, files))
    attempts.claim(served.engine, job.id, 1, worker="test", lease=60)
    with pytest.raises(ApiError) as caught:
        client.jobs.delete(job.id)
    assert caught.value.status == 409
    other = client.jobs.submit(a_job(client, files))
    client.jobs.cancel(other.id)
    client.jobs.delete(other.id)
    assert [j.id for j in client.jobs.list()] == [job.id]


def test_an_artifact_that_cannot_be_written_is_a_usage_problem(client, files, worker, tmp_path):
    job = client.jobs.submit(a_job(client, files))
    worker()
    client.jobs.wait(job.id)
    with pytest.raises(UsageProblem, match="cannot be written"):
        client.jobs.artifact(job.id, "rows.csv", tmp_path / "nowhere" / "rows.csv")


EVENT = '{{"id":{id},"job":"j","time":"2026-01-01T00:00:00Z","kind":"state","state":"{state}","attempt":1,"progress":{{}}}}'


def broken(cuts):
    """A service whose event stream breaks off: each entry of `cuts` is how many events a connection gives before it fails."""
    asked, states = [], ["queued", "running", "succeeded"]

    class Cut(httpx2.SyncByteStream):
        def __init__(self, first, count):
            self.first, self.count = first, count

        def __iter__(self):
            for at in range(self.first, min(self.first + self.count, 3)):
                yield f"id: {at + 1}\ndata: {EVENT.format(id=at + 1, state=states[at])}\n\n".encode()
            raise httpx2.ReadError("connection reset")

    def answer(request):
        asked.append(int(request.headers["Last-Event-ID"]))
        return httpx2.Response(200, stream=Cut(asked[-1], cuts[min(len(asked), len(cuts)) - 1]))

    return asked, sdk.Client("http://service.test", transport=httpx2.MockTransport(answer))


def test_a_broken_stream_is_taken_up_after_the_last_event(monkeypatch):
    monkeypatch.setattr(sdk.time, "sleep", lambda _: None)
    asked, client = broken([1, 0, 1, 5])
    events = client.jobs.events("j")
    assert [next(events).id for _ in range(3)] == [1, 2, 3]
    assert asked == [0, 1, 1, 2]


def test_a_service_that_stays_away_is_given_up(monkeypatch):
    monkeypatch.setattr(sdk.time, "sleep", lambda _: None)
    asked, client = broken([0])
    with pytest.raises(ServiceAway):
        client.jobs.wait("j")
    assert len(asked) == sdk.PATIENCE + 1
