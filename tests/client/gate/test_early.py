from datetime import date

import pytest

from sparring.contract.early import Answer, Early, Question, Stopped
from sparring.contract.report import Score
from sparring.contract.specs import DataSpec
from sparring.contract.verdict import Baselines
from sparring.errors import UsageProblem
from sparring.gate.baselines import accepted
from sparring.gate.early import needs_every_row, stop
from sparring.gate.explain import explain
from sparring.gate.judge import judge
from sparring.gate.policy import read
from sparring.reports.rows import Outcomes
from tests.client.gate import sample
from tests.reports import factory

TODAY = date(2026, 5, 1)
UNDECLARED = DataSpec()
CLEAN, ROBUST, DROP = "id: a, metric: clean, min: 0.9", "id: b, metric: robust, threat: near, min: 0.6", "metric: robust, threat: near"


def policy(tmp_path, *rules: str):
    path = tmp_path / "gate.yaml"
    head = sample.HEAD.replace("{skip_proved: true}", "{skip_proved: true, stop: early}")
    path.write_text(head + "".join(f"  - {{{rule}}}\n" for rule in rules))
    return read(path)


def baselines(written, right: int = 190, stood: int = 150, **given) -> Baselines:
    return Baselines().replaced(accepted(written.policy, sample.evidence(right, stood, **given), "net", None, factory.WHEN))


def questions(written, kept: Baselines | None = None, only=(), spec=UNDECLARED):
    found = stop(written.policy, kept or Baselines(), "net", sample.report().data.sha256, spec, only)
    return {each.id: each for each in found.questions} if isinstance(found, Early) else {}


def ended(job_stop, *answers: Answer, rows: int = 60, of: int = 200, sha: str = ""):
    """Evidence of the first rows only: all are right, and all but the last ten stand."""
    report = sample.report(right=rows, stood=rows - 10, sha=sha)
    job = report.job.model_copy(update={"stop": job_stop})
    result = report.threats[0].model_copy(update={"worst": Score(count=rows - 10, total=rows)})
    told = Stopped(rows=rows, of=of, why="answered", answers=answers)
    changes = {"job": job, "clean": Score(count=rows, total=rows), "threats": (result,), "stopped": told}
    seen = range(rows)
    outcome = Outcomes(tuple(seen), (True,) * rows, tuple(r < rows - 10 for r in seen), (5,) * rows)
    return sample.Evidence(report.model_copy(update=changes), (outcome,), "job_" + "a" * 20)


def test_rules_on_accuracy_are_questions_that_a_worker_can_answer_alone(tmp_path):
    written = policy(
        tmp_path, CLEAN, f"{ROBUST}, min_samples: 50", "id: t, metric: trust, threat: near, min: suspect", "id: q, metric: time, max: 9"
    )
    found = questions(written)
    assert found == {"a": Question(id="a", min=0.9), "b": Question(id="b", threat=0, min=0.6, least=50)}
    assert list(questions(written, only={"b"})) == ["b"]
    job = written.policy.job("0" * 64, "1" * 64, stop(written.policy, Baselines(), "net", "2" * 64, DataSpec()))
    assert Early.model_validate_json(job.stop.model_dump_json()) == job.stop


@pytest.mark.parametrize(
    "rule", ["worst_class, threat: near, min: 0.1", "certified, threat: near, min: 0.1", "queries, threat: near, min: 9"]
)
def test_other_rules_need_every_row(tmp_path, rule: str):
    written = policy(tmp_path, CLEAN, f"id: z, metric: {rule}")
    assert needs_every_row(written.policy) == ("z",)
    assert questions(written) == {}
    assert list(questions(written, only={"a"})) == ["a"]


def test_without_the_word_it_runs_in_full(tmp_path):
    written = sample.policy(tmp_path, CLEAN)
    assert stop(written.policy, Baselines(), "net", "2" * 64, DataSpec()) == "full"


def test_a_policy_that_has_nothing_to_decide_early_is_told(tmp_path):
    with pytest.raises(UsageProblem, match=r"gate.yaml:4: evaluate.stop: no rule on clean or robust"):
        policy(tmp_path, "id: a, metric: time, max: 9")


def test_a_drop_carries_its_baseline_and_one_without_is_not_waited_for(tmp_path):
    written = policy(tmp_path, CLEAN, f"id: d, {DROP}, max_drop: 0.1")
    assert list(questions(written)) == ["a"]
    found = questions(written, baselines(written))["d"]
    assert (found.threat, found.max_drop, found.before.rows, sum(found.before.stood)) == (0, 0.1, 200, 150)
    moved = [each.model_copy(update={"key": each.key.model_copy(update={"branch": "x"})}) for each in baselines(written).entries]
    other = Baselines(entries=tuple(moved))
    assert list(questions(written, other)) == ["a"]


def read_so(entries, **changes) -> tuple:
    """The same baselines of data that were read otherwise."""
    moved = []
    for entry in entries:
        threat = entry.key.threat and entry.key.threat.model_copy(update=changes)
        moved.append(entry.model_copy(update={"key": entry.key.model_copy(update={"threat": threat}), "rows": 8, "right": "ff"}))
    return tuple(moved)


@pytest.mark.parametrize(
    ("changes", "spec"),
    [
        ({"bounds": (-1.0, 1.0)}, DataSpec()),
        ({"bounds": "none"}, DataSpec(bounds=(0, 1))),
        ({"bounds": (0.0, 255.0), "scale": 1.0}, DataSpec()),
        ({"scale": 1.0}, DataSpec(bounds=(0, 1), scale=1 / 255)),
        ({"scale": 0.5}, DataSpec(bounds=(0, 1))),
    ],
)
def test_of_baselines_that_differ_in_how_the_data_were_read_the_one_declared_is_asked_about(tmp_path, changes, spec):
    written = policy(tmp_path, f"id: d, {DROP}, max_drop: 0.1")
    mine = baselines(written).entries
    assert next(entry.key.threat for entry in mine if entry.key.threat).scale == 1 / 255
    others = read_so([entry for entry in mine if entry.key.threat], **changes)
    for entries in ((*mine, *others), (*others, *mine)):
        assert questions(written, Baselines(entries=entries), spec=spec)["d"].before.rows == 200
    assert questions(written, Baselines(entries=others), spec=spec) == {}
    theirs = others[0].key.threat
    declared = DataSpec(bounds=theirs.bounds, scale=theirs.scale)
    assert questions(written, Baselines(entries=(*mine, *others)), spec=declared)["d"].before.rows == 8


def test_where_a_worker_alone_can_tell_which_baseline_is_meant_all_rows_are_evaluated(tmp_path):
    written = policy(tmp_path, CLEAN, f"id: d, {DROP}, max_drop: 0.1")
    mine = baselines(written).entries
    kept = Baselines(entries=(*mine, *read_so([entry for entry in mine if entry.key.threat], scale=1.0)))
    assert stop(written.policy, kept, "net", sample.report().data.sha256, DataSpec(bounds=(0, 1))) == "full"
    assert list(questions(written, kept, spec=DataSpec(bounds=(0, 1)), only={"a"})) == ["a"]


@pytest.mark.parametrize(("word", "status"), [("holds", "pass"), ("fails", "violated"), ("open", "inconclusive")])
def test_the_worker_s_answer_is_the_verdict(tmp_path, word: str, status: str):
    written = policy(tmp_path, ROBUST)
    answer = Answer(id="b", word=word, at=0 if word == "open" else 44, value=0.83, low=0.61, high=0.95)
    (rule,) = judge(written, ended(stop(written.policy, Baselines(), "net", "2" * 64, DataSpec()), answer), Baselines(), "net", TODAY)
    assert (rule.status, rule.low, rule.high, rule.samples) == (status, 0.61, 0.95, 60)
    assert rule.found == "83.3 % on 60 of 200 rows, [61.0, 95.0] %"
    assert ("after 44 of 200 rows" in rule.why) == (word != "open")


def test_a_question_nobody_asked_is_no_pass(tmp_path):
    written = policy(tmp_path, ROBUST)
    (rule,) = judge(written, ended("full"), Baselines(), "net", TODAY)
    assert rule.status == "inconclusive"


def test_a_drop_is_judged_against_the_baseline_it_was_asked_about_and_no_other(tmp_path):
    written = policy(tmp_path, f"id: d, {DROP}, max_drop: 0.3")
    kept = baselines(written, sha="e" * 64)
    asked = stop(written.policy, kept, "net", sample.report().data.sha256, DataSpec())
    answer = Answer(id="d", word="holds", at=40, value=10 / 60, low=0.1, high=0.29)
    (rule,) = judge(written, ended(asked, answer, sha="f" * 64), kept, "net", TODAY)
    assert (rule.status, rule.flips.rows, rule.flips.lost, rule.value) == ("pass", 60, 10, 10 / 60)
    (rule,) = judge(written, ended(asked, answer, sha="f" * 64), baselines(written, stood=140, sha="e" * 64), "net", TODAY)
    assert (rule.status, "not asked about it" in rule.why) == ("inconclusive", True)
    (rule,) = judge(written, ended(asked, answer, of=300, sha="f" * 64), kept, "net", TODAY)
    assert (rule.status, "300 were to be evaluated" in rule.why) == ("inconclusive", True)


def test_explaining_says_when_it_ends_and_how_many_rows_it_takes(tmp_path, capsys):
    written = policy(tmp_path, "id: a, metric: clean, min: 0.9")
    explain(written, Baselines(), "net")
    assert "as soon as each rule on clean and robust is decided" in capsys.readouterr().out
    explain(policy(tmp_path, CLEAN, "id: z, metric: queries, threat: near, min: 9"), Baselines(), "net")
    assert "z needs every row" in capsys.readouterr().out
