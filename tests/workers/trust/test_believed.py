"""Models that are known to hide their gradients are caught by an evaluation as a user would run it, and honest ones are not."""

from pathlib import Path

import pytest
from believed import HEAD, HONEST, MARKS, MASKED, STANDARD, evaluated
from page import between, line

FLAG = {
    "defensive distillation": ("suspect", "saturated_scores"),
    "quantised input": ("invalid", "gradient_absent"),
    "random layer": ("suspect", "not_deterministic"),
    "large scores": ("suspect", "saturated_scores"),
    "softmax output": ("suspect", "probabilities"),
    "shattered gradient": ("suspect", "weaker_attacker_wins"),
    "k winners take all": ("suspect", "weaker_attacker_wins"),
}
SLOW = ("shattered gradient", "k winners take all")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in MASKED])
def test_a_model_that_hides_its_gradient_is_caught(tmp_path: Path, name: str) -> None:
    make, job = MASKED[name]
    told = evaluated(tmp_path, make(), job, rows=None if name in SLOW else 100)
    (result,) = told.threats
    level, code = FLAG[name]
    assert result.trust.level == level
    assert code in {check.code for check in result.trust.checks if check.state == "flagged"}
    assert code in {finding.code for finding in result.trust.evidence}


@pytest.mark.parametrize("name", ["linear"])
def test_an_honest_model_raises_no_sign(tmp_path: Path, name: str) -> None:
    told = evaluated(tmp_path, HONEST[name](), {"attacks": [{"kind": "pgd", "steps": 20, "loss": "margin"}]}, rows=100)
    (result,) = told.threats
    assert result.trust.evidence == ()
    assert result.trust.level in ("reliable", "unchecked")


@pytest.mark.slow
def test_of_ten_honest_models_none_is_invalid_and_one_suspect_at_most(tmp_path: Path) -> None:
    found = {}
    for at, (name, make) in enumerate(HONEST.items()):
        (tmp_path / str(at)).mkdir()
        found[name] = evaluated(tmp_path / str(at), make(), STANDARD)
    levels = [told.threats[0].trust.level for told in found.values()]
    assert len(levels) == 10
    assert "invalid" not in levels
    assert levels.count("suspect") <= 1
    assert sum(told.cost.check_seconds for told in found.values()) < 0.15 * sum(told.cost.attack_seconds for told in found.values())


def test_the_page_has_a_line_for_every_model() -> None:
    figures = between(Path(__file__).parents[3] / "docs" / "trust.md", MARKS)
    for name in (*MASKED, *HONEST):
        assert figures.count(f"| {name} |") == 1, "run `make trust`"
    assert line(HEAD) in figures
