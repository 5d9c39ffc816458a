import json

import pytest

from sparring.contract.verdict import Baselines
from sparring.errors import UsageProblem
from sparring.gate.baselines import accepted, load, save
from sparring.gate.judge import Evidence
from tests.client.gate import sample
from tests.reports import factory


def fresh(tmp_path, **given):
    return accepted(sample.policy(tmp_path, "id: a, metric: time, max: 1").policy, sample.evidence(**given), "net", None, factory.WHEN)


def test_a_file_comes_back_as_it_was_and_ends_in_a_line(tmp_path):
    path = tmp_path / "b.json"
    assert load(path) == Baselines()
    kept = Baselines().replaced(fresh(tmp_path))
    save(path, kept)
    assert load(path) == kept
    assert path.read_text().endswith("}\n")
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_one_of_the_clean_accuracy_and_one_of_each_threat(tmp_path):
    clean, near = fresh(tmp_path)
    assert (clean.key.threat, clean.key.suite, sum(clean.stood)) == (None, "", 190)
    assert (near.key.threat.norm, near.key.suite, sum(near.stood)) == ("linf", "quick@1", 150)


def test_accepting_the_same_again_changes_nothing(tmp_path):
    kept = Baselines().replaced(fresh(tmp_path))
    assert kept.replaced(fresh(tmp_path)) == kept


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2}', '{"version": 1, "entries": [{}]}', '{"version": 1, "more": 1}'])
def test_a_file_of_something_else_is_refused(tmp_path, content: str):
    path = tmp_path / "b.json"
    path.write_text(content)
    with pytest.raises(UsageProblem, match="holds no baselines"):
        load(path)


def test_a_tampered_number_of_rows_is_refused(tmp_path):
    path = tmp_path / "b.json"
    save(path, Baselines().replaced(fresh(tmp_path)))
    written = json.loads(path.read_text())
    written["entries"][0]["rows"] = 100
    path.write_text(json.dumps(written))
    with pytest.raises(UsageProblem, match="rows need"):
        load(path)


def test_rows_that_cannot_be_told_again_make_no_baseline(tmp_path):
    found = sample.evidence()
    moved = Evidence(found.report, (found.rows[0]._replace(rows=tuple(range(1, 201))),))
    with pytest.raises(UsageProblem, match="first ones"):
        accepted(sample.policy(tmp_path, "id: a, metric: time, max: 1").policy, moved, "net", None)
