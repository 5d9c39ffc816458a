"""What holds of every attack of the contract. A new attack stands under these by being listed there."""

import copy
from collections.abc import Callable

import pytest
import torch
from _pytest.mark import ParameterSet
from attacks.cases import AIMED, EVERY, IDS, Spy, affine, attacked, cnn, pictures, problem, sharp, target
from torch import nn

from sparring.contract.attacks import AttackSpec

WITHOUT_CHANCE = ("fgsm", "fgm", "bim", "mifgsm", "nifgsm", "sifgsm", "tifgsm", "ascent", "deepfool", "cw", "ddn", "fmn", "fab", "rays")
WITHOUT_CHANCE += ("transfer", "substitute", "cwlinf", "ead", "jsma", "uap")


def cases(holds: Callable[[AttackSpec], bool] = lambda spec: True) -> list[ParameterSet]:
    """The attacks under a law: each in its first norm, two in all; the other norms and forms of the rest take minutes."""
    found = ((spec, norm, name) for (spec, norm), name in zip(EVERY, IDS, strict=True) if holds(spec))
    return [pytest.param(spec, norm, id=name, marks=[] if _first(spec, norm) else [pytest.mark.slow]) for spec, norm, name in found]


def _first(spec: AttackSpec, norm: str) -> bool:
    own = [each for other, each in EVERY if other is spec]
    return spec not in AIMED and (norm == own[0] or spec.kind in ("pgd", "apgd"))


every = pytest.mark.parametrize(("spec", "norm"), cases())
verdict_first = pytest.mark.parametrize("stop", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["verdict", "export"])
bounded = pytest.mark.parametrize(("spec", "norm"), cases(lambda spec: spec.bounded))


@bounded
@pytest.mark.parametrize(
    ("eps", "bounds", "stop"),
    [
        (0.0, (0.0, 1.0), True),
        (1e-9, None, False),
        pytest.param(0.03, (0.0, 1.0), False, marks=pytest.mark.slow),
        (0.3, (0.0, 1.0), True),
        pytest.param(2.0, None, False, marks=pytest.mark.slow),
    ],
)
def test_stays_in_ball_and_bounds_with_zero_slack(
    spec: AttackSpec, norm: str, eps: float, bounds: tuple[float, float] | None, stop: bool
) -> None:
    model, x = cnn(), pictures()
    labels = target(model).labels(x)
    eps *= 40 if norm == "l0" else 1  # entries
    asked = problem(x, labels, norm, eps, bounds, stop=stop)
    outcome = attacked(spec, eps, target(model), asked)
    delta = outcome.x.double() - x.double()
    length = delta.flatten(1).norm(dim=1, p={"linf": float("inf"), "l2": 2, "l1": 1, "l0": 0}[norm])
    assert (length <= eps).all()
    if bounds:
        assert outcome.x.min() >= bounds[0]
        assert outcome.x.max() <= bounds[1]
    if eps == 0:
        assert torch.equal(outcome.x, x)


@bounded
def test_far_from_the_origin_rounding_never_leaves_the_ball(spec: AttackSpec, norm: str) -> None:
    x = pictures() * 4000 - 2000
    asked = problem(x, torch.zeros(len(x), dtype=torch.int64), norm, 1e-3, None, stop=False)
    outcome = attacked(spec, 1e-3, target(cnn()), asked)
    assert asked.ball.contains(outcome.x).all()


@every
def test_never_wins_inside_the_exact_distance(spec: AttackSpec, norm: str) -> None:
    case = affine()
    eps = case.distance[norm] * (1 - 1e-3)
    outcome = attacked(sharp(spec, float(eps.max())), float(eps.max()), target(case.model), problem(case.x, case.labels, norm, eps))
    assert not outcome.success.any()


@pytest.mark.parametrize(("spec", "norm"), cases(lambda spec: spec.converges))
def test_always_wins_just_outside_the_exact_distance(spec: AttackSpec, norm: str) -> None:
    case = affine()
    for row in range(0, len(case.x), 5):
        eps = float(case.distance[norm][row]) * (1 + 1e-3)
        one = problem(case.x[row : row + 1], case.labels[row : row + 1], norm, eps)
        assert attacked(sharp(spec, eps), eps, target(case.model), one).success.all()


@every
@verdict_first
def test_success_is_what_a_fresh_pass_of_the_judge_says(spec: AttackSpec, norm: str, stop: bool) -> None:
    model, x = cnn(), pictures()
    labels = target(model).labels(x)
    asked = problem(x, labels, norm, 0.4 if norm == "linf" else 2.0, (0.0, 1.0), stop=stop)
    outcome = attacked(spec, float(asked.ball.eps[0]), target(model), asked)
    fresh = target(copy.deepcopy(model)).labels(outcome.x)
    assert torch.equal(outcome.success, fresh != labels)
    assert outcome.success.any() or not spec.converges


@pytest.mark.parametrize(("spec", "norm"), cases(lambda spec: spec.rows == "independent"))
@verdict_first
def test_no_row_looks_at_another(spec: AttackSpec, norm: str, stop: bool) -> None:
    """Bit for bit, on a model whose arithmetic is exact in fp32: integer weights, inputs k/256."""
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-3, 4, parameter.shape, generator=generator))
    x = torch.randint(0, 257, (40, 1, 4, 4), generator=generator) / 256
    labels = target(model).labels(x)
    eps = {"linf": 0.125, "l2": 0.5, "l1": 0.5, "l0": 2.0}[norm]
    whole = attacked(spec, eps, target(model, 16), problem(x, labels, norm, eps, (0.0, 1.0), stop=stop))
    assert 0 < int(whole.success.sum()) < len(x) or not spec.converges
    for tile, rows in ((16, torch.arange(39, -1, -1)), (16, torch.tensor([7])), (64, torch.arange(13, 40))):
        part = attacked(spec, eps, target(model, tile), problem(x, labels, norm, eps, (0.0, 1.0), stop=stop).select(rows))
        assert torch.equal(part.success, whole.success[rows])
        assert torch.equal(part.x, whole.x[rows])
        assert torch.equal(part.queries, whole.queries[rows])


@every
def test_the_model_is_left_as_found(spec: AttackSpec, norm: str) -> None:
    model, x = cnn(), pictures()
    model[1].eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = copy.deepcopy(model.state_dict())
    modes, grads = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    watched = target(model)
    modes = [m.training for m in model.modules()]
    state = torch.get_rng_state()
    attacked(spec, 0.1, watched, problem(x, watched.labels(x), norm, 0.1, (0.0, 1.0)))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert modes == [m.training for m in model.modules()]
    assert grads == [p.requires_grad for p in model.parameters()]
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[3].weight.grad is None


@every
@verdict_first
def test_every_query_is_counted_and_no_more_is_asked_than_declared(spec: AttackSpec, norm: str, stop: bool) -> None:
    model, x = cnn(), pictures(50)
    spy = Spy(target(model), spec.access)
    labels = target(model).labels(x)
    outcome = attacked(spec, 0.2, spy, problem(x, labels, norm, 0.2, (0.0, 1.0), stop=stop))
    # Later tries of a row may have begun when an earlier one breaks it; they are not charged to the row.
    ahead = stop and (getattr(spec, "restarts", 1) > 1 or getattr(spec, "targets", 0) > 0)
    assert int(outcome.queries.sum()) == spy.asked or (ahead and int(outcome.queries.sum()) < spy.asked)
    assert (outcome.queries > 0).all()


@every
def test_same_seed_same_answer_and_another_seed_another(spec: AttackSpec, norm: str) -> None:
    model, x = cnn(), pictures()
    labels, eps = target(model).labels(x), (5.0 if norm == "l0" else 0.05) if spec.bounded else float("inf")

    def run(seed: int) -> torch.Tensor:
        return attacked(spec, eps, target(model), problem(x, labels, norm, eps, (0.0, 1.0), seed=seed, stop=False)).x

    assert torch.equal(run(0), run(0))
    if spec.kind not in WITHOUT_CHANCE:
        assert not torch.equal(run(0), run(1))


@every
def test_a_targeted_success_is_the_target_class(spec: AttackSpec, norm: str) -> None:
    model, x = cnn(), pictures()
    wanted = (target(model).labels(x) + 1) % 5
    asked = problem(x, wanted, norm, 1.0 if norm == "linf" else 5.0, (0.0, 1.0), targeted=True)
    outcome = attacked(spec, float(asked.ball.eps[0]), target(model), asked)
    assert torch.equal(target(model).labels(outcome.x)[outcome.success], wanted[outcome.success])
    assert outcome.success.any() or spec.kind != "pgd"


@every
def test_a_success_the_judge_refuses_is_none(spec: AttackSpec, norm: str) -> None:
    """The search copy is another network altogether: whatever it claims, only the judge's word counts."""
    x, judge = pictures(), cnn(0)
    watched = target(judge)
    watched.search = cnn(9).eval()
    labels = watched.labels(x)
    outcome = attacked(spec, 0.3, watched, problem(x, labels, norm, 0.3, (0.0, 1.0)))
    fresh = target(cnn(0)).labels(outcome.x) != labels
    assert not (outcome.success & ~fresh).any()


@every
@pytest.mark.parametrize("label", [0, 1, 2])
def test_a_constant_model_is_never_broken(spec: AttackSpec, norm: str, label: int) -> None:
    """Every score ties with every other, and a tie is no success, whatever argmax makes of it."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    x = pictures(20)
    outcome = attacked(spec, 0.5, target(model), problem(x, torch.full((20,), label), norm, 0.5, (0.0, 1.0)))
    assert not outcome.success.any()


@every
def test_a_model_that_answers_nan_is_not_broken_but_said_to_be_faulty(spec: AttackSpec, norm: str) -> None:
    class Fragile(nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            moved = (rows != 0.5).flatten(1).any(1, keepdim=True)
            rise = (rows - 0.5).flatten(1).sum(1, keepdim=True)
            return torch.where(moved, torch.nan, torch.cat((torch.ones_like(rise), rise), 1))

    x = torch.full((20, 1, 4, 4), 0.5)
    eps = 1.0 if norm == "l0" else 0.2  # in l0 less than one entry is none
    outcome = attacked(spec, eps, target(Fragile()), problem(x, torch.zeros(20, dtype=torch.int64), norm, eps, (0.0, 1.0)))
    assert not outcome.success.any()
    assert outcome.faulty.all() or spec.access == "decision", "who sees decisions only cannot see NaN"


@every
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 7), (3, 4, 2, 2)])
def test_rows_of_any_shape(spec: AttackSpec, norm: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 2))
    x = torch.rand(5, *shape)
    labels = target(model).labels(x)
    outcome = attacked(spec, 30.0, target(model), problem(x, labels, norm, 30.0))
    assert outcome.x.shape == x.shape
    assert outcome.success.all() or not spec.converges
