from pathlib import Path

import pytest

from sparring.errors import UsageProblem
from sparring.gate.policy import read
from tests.client.gate import sample

GOOD = sample.HEAD + "  - {id: a, metric: clean, min: 0.5}\n"


def refused(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(UsageProblem) as caught:
        read(path)
    assert caught.value.exit_code == 4
    return str(caught.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gate.yaml"


def test_a_policy_is_read_with_the_lines_of_its_parts(tmp_path):
    found = sample.policy(tmp_path, "id: a, metric: clean, min: 0.5", "id: b, metric: time,\n     max: 60")
    assert [rule.id for rule in found.policy.rules] == ["a", "b"]
    assert (found.line("rules", 0), found.line("rules", 1), found.line("rules", 1, "max"), found.line("threats")) == (8, 9, 10, 5)
    assert found.line("rules", 7) == 7
    assert found.folder == tmp_path


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (GOOD.replace("min: 0.5", "min: half"), 8, "rules.0.min: must be a valid number"),
        (GOOD.replace("min: 0.5", "mim: 0.5"), 8, "rules.0.mim: there is no such word here"),
        (GOOD.replace("metric: clean", "metric: nice"), 8, "there is no 'nice': give one of 'clean', 'robust'"),
        (GOOD.replace("metric: clean, ", ""), 8, "the metric is missing"),
        (GOOD.replace("metric: clean", "metric: robust, threat: far"), 8, "rules.0.threat: there is no threat 'far'"),
        (GOOD.replace("version: 1\n", "version: 1\ncolour: red\n"), 2, "colour: there is no such word here"),
        (GOOD.replace("near:", "'n r':"), 6, "'n r' is not of the form"),
        (GOOD.replace("eps: 4/255", "eps: -4"), 6, "threats.near.eps: must not be negative"),
        (GOOD.replace("{skip_proved: true}", "{attacks: [{kind: pgd, steps: 0}]}"), 4, "evaluate.attacks.0.steps: must be greater"),
        (GOOD.replace("{skip_proved: true}", "{attacks: [{kind: fgm}]}"), 4, "evaluate: attacks.0: fgm is not defined"),
        (GOOD.replace("data: {path: data.npz}", "data: data.npz"), 3, "data: must be a mapping"),
        (GOOD + "waivers:\n  - {id: w, scope: [b], reason: r, approved_by: a, expires: 2030-01-01}\n", 10, "there is no rule 'b'"),
        (GOOD + "waivers:\n  - {id: w, scope: [a], reason: r, approved_by: a, expires: 2030-02-30}\n", 10, "day is out of range"),
        (GOOD + "rules: []\n", 9, "'rules' is given twice"),
        (GOOD + "a: &b 1\n", 9, "a: there is no such word here"),
        (GOOD + "x: *b\n", 9, "aliases are not read"),
        (GOOD + "? [a]\n: 1\n", 9, "a key must be a word"),
        (GOOD + "a: !!python/name:os.system\n", 9, "is not read here"),
        (GOOD + "---\nb: 1\n", 9, "another document"),
        (GOOD + "a: [\n", 10, "expected"),
        (GOOD + "a: " + "[" * 30, 9, "nested more than 20 deep"),
        ("version: 2\n" + GOOD.partition("\n")[2], 1, "version: must be 1"),
        ("hello\n", 1, "must be a mapping"),
    ],
)
def test_a_fault_is_told_with_its_line(path, text: str, line: int, said: str):
    told = refused(path, text)
    assert said in told
    assert f"{path}:{line}: " in told


def test_every_fault_is_told_at_once(path):
    told = refused(path, GOOD.replace("min: 0.5", "min: 2").replace("version: 1", "version: 3").replace("4/255", "x"))
    assert [line.split(":")[1] for line in told.splitlines()] == ["1", "6", "8"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\xff\xfe\x00", "UTF-8"), (b"", "is empty"), (b"# nothing\n", "nothing but comments"), (b"x" * (1 << 20 | 1), "at most")],
)
def test_what_is_no_text_is_refused(path, content: bytes, said: str):
    path.write_bytes(content)
    with pytest.raises(UsageProblem, match=said):
        read(path)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageProblem, match="does not exist"):
        read(tmp_path / "none.yaml")
    with pytest.raises(UsageProblem, match="is a folder"):
        read(tmp_path)
