import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from junitparser import JUnitXml

from sparring import sdk
from sparring.contract.early import Early, Question
from sparring.contract.states import Reason
from sparring.contract.verdict import Baselines, Verdict
from sparring.errors import SparringError
from sparring.gate import run
from sparring.gate.baselines import accepted
from sparring.gate.policy import read
from tests.client.gate import sample

CLEAN, NEAR = "id: clean, metric: clean, min: 0.9", "id: near, metric: robust, threat: near, min: 0.6"
DROP = "id: drop, metric: robust, threat: near, max_drop: 0.05"
FORMS = ("v.json", "v.xml", "v.sarif", "v.md", "v.html", "badge.json")


def everything() -> list[str]:
    return [word for name in FORMS for word in ("-o", name)]


def test_a_gate_that_passes(gate, policy, evaluates):
    evaluates()
    done = gate(policy(CLEAN, NEAR), *everything(), "--report", "r.html")
    assert done.code == 0, done.err
    assert done.out[0] == "PASS: 2 of 2 rules hold; digits cnn.pt2 on digits.npz, 200 rows"
    assert done.out[-1] == "report: r.html"
    assert Path("r.html").read_bytes() == b"<p>"
    verdict = Verdict.model_validate_json(Path("v.json").read_bytes())
    assert (verdict.exit_code, [rule.status for rule in verdict.rules]) == (0, ["pass", "pass"])
    assert verdict.policy == "gate.yaml"
    assert [Path(name).stat().st_size > 0 for name in FORMS] == [True] * 6
    assert json.loads(Path("badge.json").read_text())["schemaVersion"] == 1


def test_a_gate_that_does_not(gate, policy, evaluates):
    evaluates(stood=90)
    done = gate(policy(CLEAN, NEAR), "--json")
    verdict = Verdict.model_validate_json("\n".join(done.out))
    assert (done.code, verdict.exit_code) == (1, 1)
    assert [rule.status for rule in verdict.rules] == ["pass", "violated"]


def test_a_rule_that_cannot_be_decided(gate, policy, evaluates):
    evaluates(stood=120)
    done = gate(policy(CLEAN, NEAR))
    assert done.code == 5
    assert done.out[0].startswith("INCONCLUSIVE: 1 of 2 rules hold, 1 keeps the gate shut")


def test_one_rule_alone(gate, policy, evaluates):
    evaluates(stood=10)
    done = gate(policy(CLEAN, NEAR), "--rule", "clean")
    assert done.code == 0
    assert "1 not applied" in done.out[0]
    assert any("not among the rules asked for" in line for line in done.out)


def test_an_evaluation_that_fails_is_a_verdict_and_no_pass(gate, policy, worker):
    worker(reason=Reason(code="bad_model", message="the model is broken", hint="Mend it."))
    done = gate(policy(CLEAN, NEAR), *everything())
    assert done.code == 2
    assert done.out[0].startswith("COULD NOT EVALUATE:")
    assert "the model is broken" in done.out[0]
    assert "Mend it." in done.err
    assert Verdict.model_validate_json(Path("v.json").read_bytes()).exit_code == 2
    (suite,) = JUnitXml.fromfile("v.xml")
    assert (suite.tests, suite.errors) == (2, 2)


def test_baselines_that_are_more_than_a_service_takes_are_refused_before_anything_is_asked(gate, policy, client):
    name = policy(DROP)
    Path(name).write_text(Path(name).read_text().replace("{skip_proved: true}", "{skip_proved: true, stop: early}"))
    rows = 5_000_000
    (kept,) = (each for each in accepted(read(Path(name)).policy, sample.evidence(), "net", None) if each.key.threat)
    data = hashlib.sha256(Path("data.npz").read_bytes()).hexdigest()
    big = kept.model_copy(update={"key": kept.key.model_copy(update={"data": data}), "rows": rows, "right": "f" * (rows // 4)})
    Path("sparring-baselines.json").write_text(Baselines(entries=(big,)).model_dump_json())
    done = gate(name)
    assert done.code == 4
    assert "carries the rows of its baselines: 1.3 MB, but a service takes 1.0 MB" in done.err
    assert "Leave `stop: early` out of the policy" in done.err
    assert not list(client.jobs.list())


def test_data_without_rows_are_nothing_evaluated(gate, policy, worker):
    worker(reason=Reason(code="bad_data", message="x is empty", hint="Upload at least one row.", detail="empty"))
    done = gate(policy(CLEAN), "-o", "v.json")
    assert done.code == 3
    assert done.out[0].startswith("NOTHING EVALUATED:")
    assert json.loads(Path("v.json").read_text())["rules"][0]["status"] == "not_applied"


def test_numbers_without_bounds_are_told_with_the_line_that_lacks_them(gate, policy):
    name = policy(CLEAN)
    np.savez("data.npz", x=np.zeros((2, 1, 8, 8), np.float32), y=np.zeros(2, int))
    done = gate(name)
    assert done.code == 4
    assert "data.npz holds f4 values, whose lowest and highest legal value are not known" in done.err
    assert re.search(r"bounds: \[0, 1\] under data \(gate\.yaml:\d+\)", done.err)
    assert "--bounds" not in done.err


def test_a_service_that_is_not_there(gate, policy):
    done = gate(policy(CLEAN), "-o", "v.xml", url="http://127.0.0.1:1")
    assert done.code == 2
    assert "cannot be reached" in done.out[0]
    assert JUnitXml.fromfile("v.xml").errors == 1


def test_a_service_that_answers_nonsense(gate, policy, evaluates):
    evaluates(rows=b"<html>502</html>")
    assert gate(policy(CLEAN)).code == 2


def test_rows_that_contradict_their_report_decide_nothing(gate, policy, evaluates):
    evaluates(rows=sample.rows_csv(sample.evidence(stood=199)))
    done = gate(policy(NEAR))
    assert done.code == 2
    assert "contradicts its report" in done.out[0]


def test_a_fault_nobody_foresaw_is_no_pass(gate, policy, monkeypatch):
    def broken(*_given):
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(run, "_evidence", broken)
    done = gate(policy(CLEAN))
    assert done.code == 2
    assert "ZeroDivisionError: surprise" in done.out[0]


def test_a_wrong_key_is_told(gate, policy, monkeypatch):
    monkeypatch.setenv("SPARRING_KEY", "svc_wrong")
    done = gate(policy(CLEAN))
    assert done.code == 2
    assert "SPARRING_KEY" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.yaml"], "does not exist"),
        (["gate.yaml", "--rule", "other"], "the policy has no such rule"),
        (["gate.yaml", "-o", "verdict.docx"], "no verdict is written as this"),
        (["gate.yaml", "-o", "nowhere/v.json"], "does not exist"),
        (["gate.yaml", "-o", "v.json", "-o", "v.json"], "given twice"),
        (["gate.yaml", "--report", "r.xyz"], "--report r.xyz"),
        (["gate.yaml", "--model", "none.pt2"], "none.pt2 does not exist"),
        (["gate.yaml", "--colour"], "No such option"),
        (["validate"], "Missing argument"),
        (["validate", "bad.yaml"], "bad.yaml:1: "),
        (["baseline", "accept", "gate.yaml", "--branch", "a b"], "--branch"),
        ([], ""),
    ],
)
def test_bad_usage(gate, policy, arguments, said):
    policy(CLEAN)
    Path("bad.yaml").write_text("version: 2\n")
    done = gate(*arguments)
    assert done.code == 4
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_policy_whose_model_is_not_there(gate, policy):
    name = policy(CLEAN)
    Path("net.pt2").unlink()
    done = gate(name)
    assert done.code == 4
    assert re.search(rf"{name}:\d+: model: .*net.pt2 does not exist", done.err.replace("\n", " ")), done.err


def test_validating_and_explaining_ask_no_service(gate, policy):
    waiver = "waivers:\n  - {id: w, scope: [near], reason: 'as \u202eknown', approved_by: b, expires: 2020-01-01, floor: 0.2}\n"
    name = policy(CLEAN, NEAR, "id: sure, metric: clean, min: 1, level: warning", more=waiver)
    done = gate("validate", name, url="http://127.0.0.1:1")
    assert (done.code, done.out) == (0, ["gate.yaml is a sound policy: 3 rules, 1 threat, 1 waiver"])
    done = gate("explain", name, url="http://127.0.0.1:1")
    said = "\n".join(done.out)
    assert done.code == 0
    for words in ("near (linf 4/255)", "quick@1", "at least 60 %", "expired on 2020-01-01", "down to 20 %", "sure can never hold"):
        assert words in said
    assert "\u202e" not in said


def test_baselines_change_only_by_the_command(gate, policy, evaluates):
    name = policy(DROP)
    evaluates()
    assert gate(name).code == 5
    assert not Path("sparring-baselines.json").exists()
    evaluates()
    done = gate("baseline", "accept", name)
    assert done.code == 0, done.err
    assert "2 baselines accepted of model 'net', 200 rows, branch 'main'" in done.out[0]
    kept = Path("sparring-baselines.json").read_bytes()
    evaluates()
    assert gate(name).code == 0
    evaluates(stood=100, sha="cd" * 32)
    done = gate(name)
    assert done.code == 1
    assert any("50 rows lost, 0 won" in line for line in done.out)
    assert Path("sparring-baselines.json").read_bytes() == kept


def test_a_baseline_of_another_branch_is_not_compared_with(gate, policy, evaluates):
    name = policy(DROP)
    evaluates()
    assert gate("baseline", "accept", name, "--branch", "dev").code == 0
    evaluates()
    assert gate(name).code == 5


def test_an_evaluation_that_failed_is_no_baseline(gate, policy, worker):
    worker(reason=Reason(code="bad_model", message="the model is broken"))
    assert gate("baseline", "accept", policy(DROP)).code == 2
    assert not Path("sparring-baselines.json").exists()


def test_a_job_that_was_not_asked_for_is_refused(gate, policy, evaluates, client):
    evaluates()
    name = policy(CLEAN)
    assert gate(name).code == 0
    (job,) = client.jobs.list()
    done = gate(name, "--job", job.id)
    assert (done.code, "another model" in done.err) == (4, True)  # the sample's report names a digest of its own
    done = gate(policy(CLEAN, more="baseline: {branch: dev}\n"), "--job", "job_" + "0" * 20)
    assert done.code == 2
    Path("gate.yaml").write_text(Path("gate.yaml").read_text().replace("skip_proved: true", "seed: 5"))
    done = gate("gate.yaml", "--job", job.id)
    assert (done.code, "seed" in done.err) == (4, True)


def test_a_service_that_goes_away_meanwhile(gate, policy, served, monkeypatch):
    monkeypatch.setattr(sdk, "PATIENCE", 1)
    submit = sdk.Jobs.submit

    def then_away(self, *given):
        info = submit(self, *given)
        self._wire._http.base_url = "http://127.0.0.1:1"
        return info

    monkeypatch.setattr(sdk.Jobs, "submit", then_away)
    done = gate(policy(CLEAN))
    assert done.code == 2
    assert "cannot be reached" in done.out[0]


def test_the_service_keeps_verdicts_and_accepted_baselines(gate, policy, evaluates, worker, client):
    name = policy(DROP)
    evaluates()
    assert gate("baseline", "accept", name).code == 0
    clean, near = sorted(client.baselines.list(model="net", branch="main"), key=lambda each: each.key.suite)
    assert (clean.key.threat, near.score.count) == (None, 150)
    assert (
        Baselines.model_validate_json(Path("sparring-baselines.json").read_bytes()).get(near.key) == client.baselines.get(near.id).baseline
    )
    evaluates()
    assert gate(name).code == 0
    worker(reason=Reason(code="bad_model", message="the model is broken"))
    assert gate(name).code == 2
    failed, passed = client.gates.list(name="net")
    assert (failed.exit_code, passed.exit_code) == (2, 0)
    kept = client.gates.get(passed.id)
    assert (kept.verdict.rules[0].status, kept.policy.rules[0].max_drop, kept.verdict.job) == ("pass", 0.05, passed.job)
    assert list(client.gates.list(name="another")) == []


def test_a_service_that_keeps_no_verdicts_changes_none(gate, policy, evaluates, monkeypatch):
    def refused(*_given):
        raise SparringError("there is no /v1/gates")

    monkeypatch.setattr(sdk.Gates, "add", refused)
    evaluates()
    done = gate(policy(CLEAN))
    assert done.code == 0
    assert "does not keep the verdict: there is no /v1/gates" in done.err


def test_an_evaluation_that_ends_early(gate, policy, evaluates, client):
    """The worker is told what to decide; `--job` must have been told the same."""
    name = policy("id: a, metric: clean, min: 0.5")
    Path(name).write_text(Path(name).read_text().replace("skip_proved: true", "skip_proved: true, stop: early"))
    evaluates()
    gate(name)
    (job,) = client.jobs.list()
    assert job.job.stop == Early(questions=(Question(id="a", min=0.5),))
    Path(name).write_text(Path(name).read_text().replace("min: 0.5", "min: 0.6"))
    done = gate(name, "--job", job.id)
    assert (done.code, "its stop differ" in done.err) == (4, True)
