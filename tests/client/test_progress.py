import re

import pytest

from sparring import progress
from sparring.contract.jobs import Evaluate
from sparring.contract.states import Reason
from sparring.contract.threat import Threat
from sparring.errors import JobFailed


@pytest.fixture
def job(client, files):
    model, data = client.models.upload(files[0]), client.datasets.upload(files[1])
    return client.jobs.submit(Evaluate(model=model.id, data=data.id, threats=(Threat(norm="linf", eps="8/255"),))).id


def test_progress_is_told_in_lines_where_there_is_no_terminal(client, job, worker, capsys):
    worker()
    assert progress.follow(client, job).state == "succeeded"
    assert capsys.readouterr().err.splitlines() == ["queued", "running", "running: attack 50 %", "succeeded"]


def test_progress_is_a_bar_on_a_terminal(client, job, worker, capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    worker()
    progress.follow(client, job)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    assert "5/10" in shown


def test_what_keeps_a_job_waiting_is_told_once(client, job, worker, monkeypatch):
    said = []

    def say(line):
        said.append(line)
        if line.startswith("still queued"):
            worker()

    monkeypatch.setattr(progress, "PAUSE", 0.05)
    monkeypatch.setattr(progress, "say", say)
    assert progress.follow(client, job).state == "succeeded"
    assert [line for line in said if line.startswith("still")] == [
        "still queued: the queue cannot be reached; the job is kept and starts when it is back"
    ]


def test_a_job_without_a_report_raises_with_its_reason(client, job, worker):
    worker(reason=Reason(code="unsupported", message="aten.foo is not known.", hint="Use another.", detail="unsupported_op"))
    with pytest.raises(JobFailed, match=r"failed: aten.foo is not known. \(unsupported, unsupported_op\)") as caught:
        progress.follow(client, job)
    assert (caught.value.job, caught.value.code, caught.value.hint) == (job, "unsupported", "Use another.")


def test_a_cancelled_job_says_so(client, job):
    client.jobs.cancel(job)
    with pytest.raises(JobFailed, match="cancelled"):
        progress.follow(client, job)
