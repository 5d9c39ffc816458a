"""Models and rows at the edge of what makes sense: no attack falls over, claims what is not so, or leaves its ball."""

import pytest
import torch
from attacks.cases import affine, cnn, pictures, problem, target
from torch import Tensor, nn

from sparring.attacks import catalogue
from sparring.attacks.access import Target
from sparring.attacks.problem import Outcome, Problem
from sparring.attacks.search import search_copy
from sparring.contract.attacks import (
    APGD,
    BIM,
    CW,
    DDN,
    DIFGSM,
    EAD,
    FAB,
    FGM,
    FGSM,
    FMN,
    JSMA,
    MIFGSM,
    NIFGSM,
    PGD,
    RFGSM,
    SIFGSM,
    TIFGSM,
    VAT,
    AttackSpec,
    CWLinf,
    DeepFool,
    GradientAscent,
    Noise,
    SparseRS,
    Square,
)
from sparring.workers.prepare import Voting

BRIEF: list[tuple[AttackSpec, str]] = [
    *[(Noise(draws=3), "linf"), (FGSM(), "linf"), (FGM(), "l1"), (RFGSM(), "linf"), (GradientAscent(steps=3), "l2")],
    *[(BIM(steps=3), "linf"), (MIFGSM(steps=3), "l2"), (DIFGSM(steps=3), "linf"), (PGD(steps=4, loss="kl"), "linf")],
    *[(NIFGSM(steps=3), "l2"), (SIFGSM(steps=3), "linf"), (TIFGSM(steps=3), "l2")],
    *[(PGD(steps=4), "l1"), (APGD(steps=6, loss="scaled"), "linf"), (APGD(steps=6, loss="dlr", targets=3), "l2"), (APGD(steps=9), "l1")],
    *[(VAT(), "l2"), (DeepFool(steps=4), "linf"), (DDN(steps=6), "l2"), (FMN(steps=6), "l0"), (CW(steps=5, searches=2), "l2")],
    *[(CWLinf(steps=3, rounds=3), "linf"), (EAD(steps=5, searches=2), "l1"), (JSMA(steps=5), "l0")],
    *[(JSMA(steps=5, saliency="logits"), "l0")],
    *[(FAB(steps=4), "l1"), (FAB(steps=4, targets=3), "linf"), (Square(queries=8), "linf"), (Square(queries=8), "l2")],
    *[(SparseRS(queries=8), "l0")],
]
brief = pytest.mark.parametrize(("spec", "norm"), BRIEF, ids=[f"{spec.kind}-{norm}" for spec, norm in BRIEF])


class Shown(nn.Module):
    """Scores of a small network, made into something else."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = cnn().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.shown(self.inner(x), x)

    def shown(self, scores: Tensor, x: Tensor) -> Tensor:
        return scores


class Overflowing(Shown):
    """Infinite on one side or the other."""

    def shown(self, scores: Tensor, x: Tensor) -> Tensor:
        return scores * 1e30 * 1e30


class Half(Shown):
    """Infinite numbers and NaN in half of all answers."""

    def shown(self, scores: Tensor, x: Tensor) -> Tensor:
        return torch.where(scores > scores.mean(), scores.log() / 0, scores)


class Saturated(Shown):
    """So sure that probabilities are exactly 0 and 1."""

    def shown(self, scores: Tensor, x: Tensor) -> Tensor:
        return scores * 1e9


class Steep(Shown):
    """Without a finite slope at the clean row."""

    def shown(self, scores: Tensor, x: Tensor) -> Tensor:
        return scores + (x - 0.5).abs().flatten(1).sum(1, keepdim=True).sqrt()


class Short(Shown):
    """Two classes only."""

    def shown(self, scores: Tensor, x: Tensor) -> Tensor:
        return scores[:, :2]


class Few(Shown):
    """Three classes."""

    def shown(self, scores: Tensor, x: Tensor) -> Tensor:
        return scores[:, :3]


class Alone(Shown):
    """One class, which nobody can leave."""

    def shown(self, scores: Tensor, x: Tensor) -> Tensor:
        return scores[:, :1]


class Coarse(Shown):
    """Computes in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        self.inner.bfloat16()
        logits: Tensor = self.inner(x.bfloat16()).float()
        return logits


class Rounded(Shown):
    """The input does not reach the answer by any slope."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner((x * 16).round() / 16)
        return logits


def attacked(spec: AttackSpec, norm: str, model: nn.Module, x: Tensor, labels: Tensor | None = None) -> tuple[Problem, Outcome]:
    """In a ball in which most rows of the network fall."""
    eps = {"linf": 0.3, "l2": 1.5, "l1": 6.0, "l0": 20.0}[norm]
    watched = target(model, 16)
    labels = watched.verdict(x).nan_to_num().argmax(1) if labels is None else labels
    asked = problem(x, labels, norm, eps, (0.0, 1.0))
    return asked, catalogue.run(spec, eps, watched, asked)


@brief
@pytest.mark.parametrize(
    "model",
    [Half, Saturated, Steep, Alone, Coarse, *(pytest.param(each, marks=pytest.mark.slow) for each in (Overflowing, Short, Few, Rounded))],
)
def test_what_is_claimed_is_so_and_lies_in_the_ball(model: type[Shown], spec: AttackSpec, norm: str) -> None:
    made, x = model().eval(), pictures(6)
    if model is Steep:
        x = torch.full_like(x, 0.5)
    asked, outcome = attacked(spec, norm, made, x)
    assert outcome.x.isfinite().all()
    assert asked.ball.contains(outcome.x).all()
    assert torch.equal(outcome.success, outcome.success & asked.goal.reached(target(made, 16).verdict(outcome.x)))
    if model is Alone:
        assert not outcome.success.any()
    if model in (Saturated, Short, Few, Coarse) and spec.converges and getattr(spec, "loss", "") != "kl":
        assert outcome.success.any()


@pytest.mark.parametrize(
    ("loss", "targets"), [*((loss, 0) for loss in ("ce", "margin", "dlr", "difference", "scaled")), ("dlr", 9), ("difference", 9)]
)
def test_with_two_classes_every_loss_leads_over_the_boundary(loss: str, targets: int) -> None:
    """DLR has no third logit there, and there is one class to aim at."""
    case = affine(12)
    spec = APGD(steps=12, loss=loss, targets=targets)
    for slack, broken in ((1e-3, True), (-1e-3, False)):
        eps = case.distance["linf"] * (1 + slack)
        outcome = catalogue.run(spec, float(eps.max()), target(case.model), problem(case.x, case.labels, "linf", eps))
        assert (outcome.success == broken).all()
        assert (outcome.queries <= 13 + 2).all()


@brief
def test_rows_that_are_wrong_from_the_start_are_broken_at_once(spec: AttackSpec, norm: str) -> None:
    """A course attacks none of them; an attack that is handed them all the same claims them, and no attack stumbles."""
    x = pictures(6)
    labels = (target(cnn()).labels(x) + 1) % 5
    _, outcome = attacked(spec, norm, cnn(), x, labels)
    if spec.kind not in ("fgsm", "fgm", "vat", "ascent"):  # who keeps the last point may repair a row
        assert outcome.success.all()


@brief
def test_no_radius_is_no_change(spec: AttackSpec, norm: str) -> None:
    model, x = cnn(), pictures(6)
    watched = target(model, 16)
    outcome = catalogue.run(spec, 0.0, watched, problem(x, watched.labels(x), norm, 0.0, (0.0, 1.0)))
    assert torch.equal(outcome.x, x)
    assert not outcome.success.any()


@pytest.mark.parametrize(("spec", "norm"), [(s, n) for s, n in BRIEF if s.converges and n != "l0"])
@pytest.mark.parametrize("edge", ["every entry at a limit", "no room at all"])
def test_rows_on_the_bounds(spec: AttackSpec, norm: str, edge: str) -> None:
    """At a limit with all the room on the side that matters the distance is that without bounds; without room nothing moves."""
    case = affine(1)
    slope = case.model.weight[1].detach()
    low, high = -5.0, 5.0
    uphill = torch.where(slope > 0, low, high)[None]  # to raise the score every entry has all the room there is
    score = float(uphill.double() @ slope.double())
    assert score < 0
    dual = {"linf": slope.abs().sum(), "l2": slope.norm(), "l1": slope.abs().amax()}[norm]
    eps = -score / float(dual) * (1 + 1e-2) if edge == "every entry at a limit" else 1.0
    bounds = (low, high) if edge == "every entry at a limit" else (low, low)
    x = uphill if edge == "every entry at a limit" else torch.full((1, 12), low)
    labels = target(case.model).labels(x)
    longer = spec.model_copy(update={"steps": 60}) if "steps" in type(spec).model_fields else spec
    outcome = catalogue.run(longer, eps, target(case.model), problem(x, labels, norm, eps, bounds))
    assert outcome.x.min() >= bounds[0]
    assert outcome.x.max() <= bounds[1]
    if edge == "no room at all":
        assert torch.equal(outcome.x, x)
        assert not outcome.success.any()
    elif norm != "l1":  # one entry may not be enough: the box ends before the budget does
        assert outcome.success.all()


class Branching(nn.Module):
    """What it does hangs on the numbers it sees: nothing can trace it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = cnn()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x if float(x.detach().sum()) >= 0 else -x)
        return logits


@brief
def test_a_model_that_cannot_be_traced_is_attacked_as_it_is(spec: AttackSpec, norm: str) -> None:
    branching, plain, x = Branching().eval(), cnn().eval(), pictures(6)
    search, done = search_copy(nn.Sequential(branching))
    assert "batch norm folded" not in done
    eps = {"linf": 0.1, "l2": 0.6, "l1": 2.0, "l0": 8.0}[norm]
    asked = problem(x, target(plain).labels(x), norm, eps, (0.0, 1.0))
    found = catalogue.run(spec, eps, Target(branching, search, 16), asked)
    same = catalogue.run(spec, eps, Target(plain, plain.to(memory_format=torch.channels_last), 16), asked)
    assert torch.equal(found.success, same.success)
    assert torch.allclose(found.x, same.x, atol=1e-4) or spec.kind in ("cw", "fab", "fmn", "ddn")


class Drawing(nn.Module):
    """Every pass draws noise of its own on the scores."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.inner, self.size = cnn(), size

    def forward(self, x: Tensor) -> Tensor:
        scores = self.inner(x)
        return scores + self.size * torch.randn_like(scores)


@pytest.mark.parametrize(
    "spec", [PGD(steps=5, samples=4), APGD(steps=6, samples=3), APGD(steps=6, loss="dlr", samples=3), Square(queries=8)]
)
def test_a_model_that_draws_is_attacked_and_its_judge_may_be_a_vote(spec: AttackSpec) -> None:
    """One look among many is wrong by chance; where most of eleven passes cross the boundary, so does their mean, nearly."""
    torch.manual_seed(0)
    noise, x, steady = 0.05, pictures(20), target(cnn(), 16)
    asked = problem(x, steady.labels(x), "linf", 0.3, (0.0, 1.0))
    drawing = Drawing(noise).eval()
    outcome = catalogue.run(spec, 0.3, Target(Voting(drawing), drawing, 16), asked)
    assert asked.ball.contains(outcome.x).all()
    assert outcome.success.any()
    assert (asked.goal.margin(steady.logits(outcome.x))[outcome.success] > -noise).all()


@pytest.mark.parametrize("spec", [APGD(steps=8), APGD(steps=6, loss="dlr", targets=2), PGD(steps=8)], ids=["apgd", "apgd-t", "pgd"])
def test_a_mean_over_what_does_not_vary_changes_nothing_but_the_count(spec: AttackSpec) -> None:
    model, x = cnn(), pictures(8)
    asked = problem(x, target(model).labels(x), "linf", 0.05, (0.0, 1.0))
    once, thrice = (catalogue.run(each, 0.05, target(model), asked) for each in (spec, spec.model_copy(update={"samples": 3})))
    assert torch.equal(once.success, thrice.success)
    assert torch.allclose(once.x, thrice.x, atol=1e-6)
    held, clean = ~once.success, int(getattr(spec, "targets", 0) > 0)
    assert held.any()
    assert torch.equal(thrice.queries[held] - clean, 3 * (once.queries[held] - clean))
