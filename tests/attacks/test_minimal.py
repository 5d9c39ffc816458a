"""The searches for the smallest change find the distances that are known on paper."""

from collections.abc import Callable

import pytest
import torch
from attacks.cases import Affine, affine, cnn, pictures, problem, target
from torch import Tensor, nn

from sparring.attacks import catalogue
from sparring.attacks.problem import Outcome, Problem
from sparring.contract.attacks import CW, DDN, EAD, FAB, FMN, JSMA, AttackSpec, CWLinf, DeepFool

INF = float("inf")
BRIEF_CW = CW(steps=100, searches=4, weight=1.0, rate=0.03)
LONG_CW = CW(steps=150, searches=4, weight=1.0, rate=0.1)
"""Entries that begin at a limit have a long way in tanh space."""
BRIEF_LINF = CWLinf(steps=20, rounds=20, weight=0.1)
BRIEF_EAD = EAD(steps=100, searches=4, weight=1.0)
CLOSE: list[tuple[AttackSpec, float]] = [
    (DeepFool(), 0.0201),
    (FAB(steps=20), 1e-3),
    (FAB(steps=20, targets=1, restarts=2), 1e-3),
    (FMN(steps=60), 1e-3),
    (DDN(steps=60), 3e-3),
    (BRIEF_CW, 0.04),
    (BRIEF_LINF, 0.01),
    (BRIEF_EAD, 0.05),
    (JSMA(), 0.0),
]
"""How far above the exact distance they may end on an affine model, of it."""
EACH = [(spec, norm, slack) for spec, slack in CLOSE for norm in spec.norms if norm != "l0"]
IDS = [f"{spec.kind}-{norm}" for spec, norm, _ in EACH]
SPECS = [pytest.param(spec, norm, id=f"{spec.kind}-{norm}") for spec, _ in CLOSE for norm in spec.norms]


def run(spec: AttackSpec, model: nn.Module, asked: Problem) -> Outcome:
    return catalogue.run(spec, float(asked.ball.eps[0]), target(model), asked)


def lengths(asked: Problem, outcome: Outcome) -> Tensor:
    return asked.ball.distance(outcome.x)


def multiclass(classes: int = 6, size: int = 10, rows: int = 16) -> Affine:
    """Affine, with each row's exact distance min_i (z_y - z_i) / ||w_y - w_i|| in the dual norm; confident almost everywhere."""
    torch.manual_seed(5)
    model, x = nn.Linear(size, classes), torch.randn(rows, size)
    with torch.no_grad():
        model.weight.mul_(100)
    scores = model(x).detach().double()
    labels = scores.argmax(1)
    weight = model.weight.detach().double()
    apart = weight[labels][:, None] - weight[None]
    gap = scores.gather(1, labels[:, None]) - scores
    dual = {"linf": apart.abs().sum(2), "l2": apart.norm(dim=2), "l1": apart.abs().amax(2)}
    return Affine(model, x, labels, {n: torch.where(size > 0, gap / size.clamp(min=1e-12), INF).amin(1) for n, size in dual.items()})


@pytest.mark.parametrize(
    ("spec", "norm", "slack", "targeted"), [(*each, aim) for each in EACH for aim in (False, True) if each[0].targetable >= aim]
)
def test_two_classes_apart_by_a_plane(spec: AttackSpec, norm: str, slack: float, targeted: bool) -> None:
    case = affine(16)
    asked = problem(case.x, 1 - case.labels if targeted else case.labels, norm, INF, stop=False, targeted=targeted)
    outcome = run(spec, case.model, asked)
    excess = lengths(asked, outcome) / case.distance[norm] - 1
    assert outcome.success.all()
    assert excess.min() > -1e-5
    assert excess.max() < slack
    assert torch.allclose(outcome.score.double(), -lengths(asked, outcome), rtol=1e-5)


@pytest.mark.parametrize(("spec", "norm", "slack"), EACH, ids=IDS)
def test_the_nearest_of_many_planes(spec: AttackSpec, norm: str, slack: float) -> None:
    if isinstance(spec, FAB) and spec.targets:
        spec = FAB(steps=20, targets=5)
    if isinstance(spec, CW):
        spec = CW(steps=150, searches=6, weight=0.01)
    case = multiclass()
    asked = problem(case.x, case.labels, norm, INF, stop=False)
    excess = lengths(asked, run(spec, case.model, asked)) / case.distance[norm] - 1
    assert excess.min() > -1e-5
    if isinstance(spec, (DeepFool, FAB)):  # they look at every boundary, the others follow the largest other logit
        assert excess.max() < slack
    else:
        assert excess.median() < slack


def test_deepfool_needs_one_step_where_the_boundary_is_a_plane() -> None:
    case = affine(16)
    asked = problem(case.x, case.labels, "l2", INF, stop=False)
    outcome = run(DeepFool(overshoot=0.1), case.model, asked)
    assert torch.allclose(lengths(asked, outcome), 1.1 * case.distance["l2"], rtol=1e-4)
    assert (outcome.queries == 3).all()  # the clean row, the point beyond, and the judge's look at it


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_deepfool_crosses_where_bounds_cut_its_steps(norm: str) -> None:
    model, x = cnn(), pictures(16)
    labels = target(model).labels(x)
    asked = problem(x, labels, norm, INF, (0.0, 1.0), stop=False)
    outcome = run(DeepFool(), model, asked)
    assert outcome.success.all()
    assert outcome.x.min() >= 0
    assert outcome.x.max() <= 1


def boxed(norm: str) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """Two classes in [0, 1], most entries at its corners, and the exact distance there."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    x = pictures(16).round().where(torch.rand(16, 1, 8, 8) < 0.8, pictures(16))
    score = model(x).detach()
    labels = score.argmax(1)
    slope = (model[1].weight[1] - model[1].weight[0]).detach() * torch.where(labels == 0, 1.0, -1.0)[:, None]
    space = problem(x, labels, norm, INF, (0.0, 1.0)).ball
    exact = space.onto(x, slope.reshape(x.shape), (score[:, 0] - score[:, 1]).abs())
    return model, x, labels, space.distance(exact)


@pytest.mark.parametrize(("spec", "norm"), SPECS)
def test_at_the_corners_of_the_box(spec: AttackSpec, norm: str) -> None:
    model, x, labels, exact = boxed(norm)
    asked = problem(x, labels, norm, INF, (0.0, 1.0), stop=False)
    outcome = run(LONG_CW if spec is BRIEF_CW else spec, model, asked)
    excess = lengths(asked, outcome) / exact - 1
    assert outcome.success.all()
    assert excess.min() > -1e-5
    assert excess.max() < (
        0.5
        if norm == "l0"
        else {"deepfool": 0.6, "fab": 5e-3, "ddn": 0.03, "fmn": 0.03, "cw": 0.08, "cwlinf": 0.02, "ead": 0.08}[spec.kind]
    )
    assert excess.median() < (0.3 if spec.kind == "deepfool" else 0.02)


@pytest.mark.parametrize(("spec", "norm"), SPECS)
def test_a_course_with_an_eps_keeps_what_lies_inside_and_nothing_else(spec: AttackSpec, norm: str) -> None:
    model, x, labels, exact = boxed(norm)
    eps = float(exact.median()) * (1 + 1e-6)
    for stop in (False, True):
        asked = problem(x, labels, norm, eps, (0.0, 1.0), stop=stop)
        outcome = run(LONG_CW if spec is BRIEF_CW else spec, model, asked)
        assert asked.ball.contains(outcome.x).all()
        assert torch.equal(outcome.x[~outcome.success], x[~outcome.success])
        assert not outcome.success[exact > eps].any()
        assert outcome.success[exact < eps * 0.6].all()
        assert outcome.success.any()
        if spec.kind in ("fab", "fmn", "ddn") and norm != "l0":
            assert outcome.success[exact < eps * 0.98].all()


@pytest.mark.parametrize(("spec", "norm"), SPECS)
@pytest.mark.parametrize("bounds", [(0.0, 1.0), None], ids=["boxed", "free"])
def test_where_nothing_slopes_nothing_is_found_and_nothing_breaks(spec: AttackSpec, norm: str, bounds: tuple[float, float] | None) -> None:
    class Plateau(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            rise = (rows.flatten(1).sum(1) - 1e4).relu()
            return torch.stack((torch.ones_like(rise), rise, rise - 1), 1)

    x = pictures(5)
    outcome = run(spec, Plateau(), problem(x, torch.zeros(5, dtype=torch.int64), norm, INF, bounds, stop=False))
    assert torch.equal(outcome.x, x)
    assert not outcome.success.any()
    assert not outcome.faulty.any()
    assert (outcome.score == -INF).all()


@pytest.mark.parametrize(("spec", "norm", "slack"), EACH, ids=IDS)
def test_a_judge_who_draws_the_boundary_a_little_further_out_costs_no_row(spec: AttackSpec, norm: str, slack: float) -> None:
    case = affine(16)
    further = nn.Linear(12, 2, bias=False)
    with torch.no_grad():
        further.weight.copy_(case.model.weight)

    class Doubtful(nn.Module):
        """The same plane, a little further from every clean row."""

        def forward(self, rows: Tensor) -> Tensor:
            score = further(rows)[:, 1]
            side = torch.where(near(rows), 1.0, -1.0)
            return torch.stack((torch.zeros_like(score), score + side * 0.005), 1)

    def near(rows: Tensor) -> Tensor:
        clean = case.x[torch.cdist(rows, case.x).argmin(1)]
        return further(clean)[:, 1] > 0

    watched = target(case.model)
    watched.judge = Doubtful()
    asked = problem(case.x, case.labels, norm, INF, stop=False)
    outcome = catalogue.run(spec, INF, watched, asked)
    bare = case.distance[norm] > 0.1 * case.distance[norm].median()  # of the others 0.005 is much of the distance
    assert outcome.success[bare].all()


@pytest.mark.parametrize("spec", [BRIEF_CW, BRIEF_LINF, BRIEF_EAD], ids=lambda spec: spec.kind)
def test_the_boundary_is_passed_by_the_confidence_asked_for(spec: AttackSpec) -> None:
    case = affine(16)
    asked = problem(case.x, case.labels, spec.norms[0], INF, stop=False)
    outcome = run(spec.model_copy(update={"confidence": 0.5}), case.model, asked)
    assert (asked.goal.margin(case.model(outcome.x).detach()) > 0.5 * (1 - 1e-6)).all()


def test_in_linf_the_limit_ends_near_the_exact_distance_whatever_weight_begins() -> None:
    model, x, labels, exact = boxed("linf")
    asked = problem(x, labels, "linf", INF, (0.0, 1.0), stop=False)
    for weight in (1e-5, 0.1):
        outcome = run(CWLinf(steps=10, rounds=40, weight=weight), model, asked)
        assert outcome.success.all()
        assert (lengths(asked, outcome) <= exact * 1.02).all()


def test_the_larger_beta_the_fewer_entries_change_and_the_shorter_is_the_way_in_l1() -> None:
    model, x, labels, _ = boxed("l1")
    asked = problem(x, labels, "l1", INF, (0.0, 1.0), stop=False)
    ends = [run(BRIEF_EAD.model_copy(update={"beta": beta}), model, asked) for beta in (1e-3, 1e-2, 1e-1)]
    changed = [(end.x != x).flatten(1).sum(1).double().mean() for end in ends]
    assert changed[0] > changed[1] > changed[2]
    assert lengths(asked, ends[0]).mean() > lengths(asked, ends[1]).mean() > lengths(asked, ends[2]).mean()


@pytest.mark.parametrize("make", [lambda n: FAB(steps=8, restarts=n), lambda n: FMN(steps=15, restarts=n)], ids=["fab", "fmn"])
def test_more_restarts_never_end_further_away(make: Callable[[int], AttackSpec]) -> None:
    model, x = cnn(), pictures(32)
    labels = target(model).labels(x)
    asked = problem(x, labels, "l2", INF, (0.0, 1.0), stop=False)
    ends = [lengths(asked, run(make(n), model, asked)) for n in (1, 2, 3)]
    assert (ends[1] <= ends[0] * (1 + 4e-4)).all()  # the bisection at the end is no finer
    assert (ends[2] <= ends[1] * (1 + 4e-4)).all()
    assert (ends[2] < ends[0] * (1 - 1e-3)).any()


def test_the_runner_up_is_not_always_the_nearest_class() -> None:
    case = multiclass()
    asked = problem(case.x, case.labels, "l2", INF, stop=False)
    first, every = (lengths(asked, run(FAB(steps=10, targets=n), case.model, asked)) for n in (1, 5))
    assert (every <= first * (1 + 4e-4)).all()
    assert (every < first * 0.99).any()


def test_on_a_network_they_agree() -> None:
    """Methods that have nothing in common find the same distances; one that is off is wrong."""
    model, x = cnn(), pictures(16)
    with torch.no_grad():
        model[-1].weight.mul_(30)
        model[-1].bias.mul_(30)
    labels = target(model).labels(x)
    asked = problem(x, labels, "l2", INF, (0.0, 1.0), stop=False)
    ends = torch.stack([lengths(asked, run(spec, model, asked)) for spec in (FAB(steps=40), FMN(steps=80), DDN(steps=80))])
    best = ends.amin(0)
    assert ((ends / best).mean(1) < 1.03).all()
    assert ((ends / best).median(1).values < 1.01).all()


def test_a_verdict_is_reached_sooner_than_a_distance() -> None:
    model, x = cnn(), pictures(16)
    labels = target(model).labels(x)
    for spec in (FAB(steps=20), FMN(steps=30), DDN(steps=30)):
        course = run(spec, model, problem(x, labels, "l2", INF, (0.0, 1.0), stop=False))
        eps = 1.2 * float(problem(x, labels, "l2", 1.0).ball.distance(course.x).max())
        verdict = run(spec, model, problem(x, labels, "l2", eps, (0.0, 1.0)))
        assert verdict.success.all()
        assert int(verdict.queries.sum()) < int(course.queries.sum()) / 3
