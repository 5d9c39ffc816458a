"""Slopes from probes are those of the loss, and no row asks more than it may."""

import pytest
import torch
from attacks.cases import Spy, affine, cnn, pictures, problem, target
from torch import Tensor, nn

from sparring.attacks import catalogue, random
from sparring.attacks.access import Scores
from sparring.attacks.estimates import adam, estimated, plateaus, signs
from sparring.attacks.losses import margin
from sparring.attacks.problem import Point
from sparring.contract.attacks import NES, SPSA, AttackSpec, Boundary, HopSkipJump, RayS, SimBA

DRAWS = [pytest.param(random.normals, id="nes"), pytest.param(signs, id="spsa")]
ASKING: tuple[AttackSpec, ...] = (NES(pairs=7), SPSA(pairs=7), SimBA(), SimBA(basis="dct"), Boundary(), HopSkipJump(probes=9), RayS())
"""Attacks with a number of queries that they may not exceed."""


def slope(model: nn.Module, x: Tensor, draw, pairs: int, size: float, norm: str = "linf", bounds=None) -> Point:
    asked = problem(x, torch.ones(len(x), dtype=torch.int64), norm, 1.0, bounds, stop=False)
    asked = asked._replace(moving=torch.ones(len(x), dtype=torch.bool))
    return estimated(margin, draw, pairs, size)(target(model), asked, x, slope=True)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_estimate_is_unbiased_where_the_loss_is_linear(draw, norm: str) -> None:
    """Its mean over many rows that draw for themselves; the loss is -w.x, and each entry's variance |w|^2 / pairs."""
    model, w = affine().model, affine().model.weight[1].detach()
    rows, pairs = 600, 5
    found = slope(model, torch.zeros(rows, 12), draw, pairs, 0.1, norm).grad
    error = float(w.norm()) / (rows * pairs) ** 0.5
    assert (found.mean(0) + w).abs().max() < 5 * error
    assert (found[0] + w).abs().max() > error, "one row alone is not exact"


@pytest.mark.parametrize("draw", DRAWS)
def test_opposite_probes_cancel_what_is_even(draw) -> None:
    class Bowl(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            height = rows.square().sum(1)
            return torch.stack((height, torch.zeros_like(height)), 1)

    assert slope(Bowl(), torch.zeros(8, 5), draw, 3, 0.5).grad.abs().max() < 1e-6


def test_in_one_dimension_signs_give_the_difference_quotient() -> None:
    class Cubic(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            return torch.cat((rows**3, torch.zeros_like(rows)), 1)

    found = slope(Cubic(), torch.full((4, 1), 2.0), signs, 2, 0.5)
    assert torch.allclose(found.grad, torch.full((4, 1), (2.5**3 - 1.5**3) / 1.0))
    assert found.looks.tolist() == [5] * 4


def test_rows_that_have_won_or_make_their_last_move_are_not_probed() -> None:
    case = affine(12)
    asked = problem(case.x, torch.zeros(12, dtype=torch.int64), "linf", 0.1)
    going = torch.arange(12) < 6
    watched = Spy(target(case.model), "score")
    point = estimated(margin, random.normals, 4, 0.01)(Scores(watched), asked._replace(moving=going), case.x, slope=True)
    probed = going & (case.labels == 0)
    assert torch.equal(point.looks, 1 + 8 * probed)
    assert watched.asked == int(point.looks.sum())
    assert torch.equal((point.grad != 0).any(1), probed)
    assert 0 < int(probed.sum()) < 6


def test_a_step_that_does_not_pay_is_halved() -> None:
    case = affine(2)
    asked = problem(case.x, case.labels, "linf", 100.0)
    rule, x = plateaus(1.0, 0.0), case.x
    state = rule.init(asked, x)
    for t in range(11):
        loss = torch.tensor([float(t), 0.0])  # the first row's grows, the second one's does not
        x, state = rule.step(Point(x, loss, -loss, torch.ones_like(x)), state, asked, torch.tensor([t, t]))
    assert state.alpha.tolist() == [1.0, 0.25]


def test_adam_s_first_step_is_as_long_as_it_is_told_whatever_the_slope() -> None:
    case = affine(2)
    for norm, length in (("linf", 0.25), ("l2", 0.25)):
        asked = problem(case.x, case.labels, norm, 1.0)
        rule = adam(0.25)
        grad = torch.tensor([1e-3, 50.0])[:, None] * torch.ones(12)
        moved, _ = rule.step(Point(case.x, grad[:, 0], grad[:, 0], grad), rule.init(asked, case.x), asked, torch.zeros(2))
        assert torch.allclose(asked.ball.distance(moved), torch.full((2,), length, dtype=torch.float64), rtol=1e-4)


@pytest.mark.parametrize("spec", ASKING, ids=lambda spec: f"{spec.kind}-{getattr(spec, 'basis', '')}")
@pytest.mark.parametrize("queries", [10, 41])
def test_no_row_asks_more_than_it_may_whoever_the_judge_is(spec: AttackSpec, queries: int) -> None:
    """The second judge calls every success of the search copy a failure, and is asked again and again."""
    x = pictures(8)
    spec = type(spec)(**spec.model_dump(exclude={"queries"}), queries=queries)
    for judge in (cnn(0), cnn(9)):
        for stop in (True, False):
            watched = target(cnn(0))
            labels = watched.labels(x)
            watched.judge = judge.eval()
            spy = Spy(watched, spec.access)
            outcome = catalogue.run(spec, 0.3, spy, problem(x, labels, spec.norms[0], 0.3, (0.0, 1.0), stop=stop))
            assert int(outcome.queries.max()) <= queries
            assert int(outcome.queries.sum()) == spy.asked


@pytest.mark.parametrize("spec", ASKING, ids=lambda spec: f"{spec.kind}-{getattr(spec, 'basis', '')}")
def test_no_question_leaves_the_bounds_of_the_data(spec: AttackSpec) -> None:
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = cnn()

        def forward(self, rows: Tensor) -> Tensor:
            assert rows.min() >= -0.25
            assert rows.max() <= 1.5
            return self.inner(rows)

    x, model = pictures(12), Inside().eval()
    spec = type(spec)(**spec.model_dump(exclude={"queries"}), queries=120)
    labels = target(model).labels(x)
    for norm in spec.norms:
        catalogue.run(spec, 2.0, target(model), problem(x, labels, norm, 2.0, (-0.25, 1.5), stop=False))


@pytest.mark.parametrize("spec", [NES(queries=600, pairs=15), SPSA(queries=600, pairs=15)], ids=["nes", "spsa"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_they_come_near_the_best_point_of_the_ball(spec: AttackSpec, norm: str) -> None:
    case = affine()
    eps = case.distance[norm] * 1.1
    outcome = catalogue.run(spec, float(eps.mean()), target(case.model), problem(case.x, case.labels, norm, eps))
    assert outcome.success.float().mean() > 0.9
