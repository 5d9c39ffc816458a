"""What a target answers, what it counts, and what it holds."""

import weakref

import torch
from attacks.cases import cnn, pictures, target
from torch import Tensor, nn

from sparring.attacks.access import Target


def test_of_many_slopes_that_of_the_least_rank_comes_back() -> None:
    model, x = cnn().eval(), pictures(20)
    watched = Target(model, model, 32)
    logits, loss, grad = watched.slope_of_least(lambda z: z, lambda value, slope: value.abs() / slope.flatten(1).norm(dim=1), x)
    rows = x.clone().requires_grad_()
    scores = model(rows)
    slopes = torch.stack([torch.autograd.grad(column.sum(), rows, retain_graph=True)[0] for column in scores.unbind(1)], 1)
    choice = (scores.abs() / slopes.flatten(2).norm(dim=2)).argmin(1)
    every = torch.arange(20)
    assert len(choice.unique()) > 1
    assert torch.allclose(logits, scores, atol=1e-6)
    assert torch.allclose(loss, scores[every, choice], atol=1e-6)
    assert torch.allclose(grad, slopes[every, choice], atol=1e-6)
    assert (watched.spent.forwards, watched.spent.backwards) == (20, 100)


def test_of_slopes_that_rank_alike_the_first_comes_back() -> None:
    x = torch.rand(3, 4)
    for rank in (0.0, float("nan"), float("inf")):
        _, loss, _ = target(nn.Identity()).slope_of_least(lambda z: z, lambda value, slope, rank=rank: torch.full_like(value, rank), x)
        assert torch.equal(loss, x[:, 0])


def test_a_thousand_slopes_are_never_held_at_once() -> None:
    seen: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def rank(value: Tensor, slope: Tensor) -> Tensor:
        seen.append(weakref.ref(slope))
        alive.append(sum(each() is not None for each in seen))
        return -value

    torch.manual_seed(0)
    watched, x = target(nn.Linear(6, 1000)), torch.rand(5, 6)
    logits, loss, _ = watched.slope_of_least(lambda z: z, rank, x)
    assert len(seen) == 1000
    assert max(alive) <= 2
    assert torch.equal(loss, logits.amax(1))
