"""The universal perturbation: what is known of it in closed form, and what it owes to the rows it is fitted on."""

from collections.abc import Callable

import pytest
import torch
from attacks.cases import Spy, Taught, affine, problem, target
from torch import Tensor, nn

from sparring.attacks import catalogue
from sparring.attacks.uap import fit, shifted
from sparring.contract.attacks import UAP
from sparring.contract.threat import Norm


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("spec", [UAP(steps=20), UAP(steps=40, batch=3)])
def test_on_an_affine_model_it_is_the_steepest_direction_and_breaks_the_rows_within_eps(spec: UAP, norm: Norm) -> None:
    case = affine(60)
    own = case.labels == 1
    x, labels, distance = case.x[own], case.labels[own], case.distance[norm][own]
    eps = float(distance.median()) * (1 + 1e-3)
    weight = case.model.weight[1].detach().double()  # the score of class 1, to be lowered
    steepest = -weight.sign() if norm == "linf" else -weight / weight.norm()
    v = fit(spec, norm, eps, target(case.model), x, labels, None, seed=0)
    assert torch.allclose(v.double(), eps * steepest, atol=1e-5 * eps)
    outcome = shifted(v)(target(case.model), problem(x, labels, norm, eps))
    assert torch.equal(outcome.success, distance < eps)
    assert 0 < int(outcome.success.sum()) < len(x)


def test_each_row_is_looked_at_once_and_by_the_judge_where_it_seems_broken() -> None:
    case = affine(60)
    watched = Spy(target(case.model), "score")
    outcome = shifted(torch.full((12,), 0.1))(watched, problem(case.x, case.labels, "linf", 0.1))
    assert torch.equal(outcome.queries, 1 + outcome.success.long())
    assert watched.asked == int(outcome.queries.sum())


def test_rows_that_are_lost_already_do_not_rule_the_sum() -> None:
    """Three rows far beyond the boundary have the steepest losses there are, and all want the same; the other two decide."""
    model = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    x = torch.tensor([[50.0, -50.0]] * 3 + [[-0.5, -0.3]] * 2)
    labels = torch.zeros(5, dtype=torch.int64)
    own = target(model)
    alone = fit(UAP(steps=10), "l2", 0.4, own, x[3:], labels[3:], None, seed=0)
    assert torch.allclose(fit(UAP(steps=10), "l2", 0.4, own, x, labels, None, seed=0), alone, atol=1e-6)
    assert not torch.allclose(fit(UAP(steps=10, clip=1e6), "l2", 0.4, own, x, labels, None, seed=0), alone, atol=1e-2)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_a_certain_model_has_a_slope_all_the_same(scale: float) -> None:
    case = affine(60)
    own = case.labels == 1
    with torch.no_grad():
        case.model.weight.mul_(scale)
    v = fit(UAP(steps=10), "linf", 0.1, target(case.model), case.x[own], case.labels[own], None, seed=0)
    assert torch.equal(v.sign(), -case.model.weight[1].sign())


def test_batches_are_drawn_from_the_seed_and_whatever_is_asked_stays_in_the_bounds() -> None:
    class Watching(Spy):
        def slope(self, loss: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            assert x.min() >= 0
            assert x.max() <= 1
            return super().slope(loss, x)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.rand(50, 6).round(decimals=1)
    watched = Watching(target(model, 16), "gradient")
    labels = watched.labels(x)
    spec = UAP(steps=7, batch=20)
    before = watched.asked
    first, again, other = (fit(spec, "linf", 0.3, watched, x, labels, (0.0, 1.0), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert watched.asked - before == 3 * 20 * 7
    assert first.abs().max() <= 0.3


def test_without_lessons_it_says_so() -> None:
    case = affine()
    with pytest.raises(ValueError, match="uap needs what was learnt before the attack"):
        catalogue.run(UAP(), 0.1, target(case.model), problem(case.x, case.labels, "linf", 0.1))
    taught = Taught(target(case.model), (12,))
    outcome = catalogue.run(UAP(), 0.1, target(case.model), problem(case.x, case.labels, "linf", 0.1), taught)
    assert (outcome.x != case.x).any()
