"""How the weights step, where that is more than one step along one gradient."""

from functools import partial

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.norms import Ball
from sparring.contract.threat import Norm
from sparring.defenses.data import Batch
from sparring.defenses.layers import first, through_first
from sparring.defenses.perturb import START, around
from sparring.defenses.recipe import Carry, Turn, Update
from sparring.defenses.views import Views


def replay(norm: Norm, eps: float, replays: int) -> Update:
    """Free adversarial training: each backward pass moves the weights and the rows (Shafahi et al. 2019, algorithm 1).

    The perturbation is carried from batch to batch; a short last batch uses part of it.
    """

    def update(turn: Turn, x: Tensor, carry: Carry) -> Carry:
        batch, area = turn.batch, around(norm, eps, turn.batch)
        delta = carry["delta"].clone() if "delta" in carry else torch.zeros_like(x)
        part = delta[: len(x)] if len(delta) >= len(x) else torch.zeros_like(x)
        moved = area.project(x + part)
        for _ in range(replays):
            slopes: list[Tensor] = []
            turn.descend(partial(_both, turn, moved, slopes))
            moved = area.project(moved + eps * area.steepest(slopes[-1], moved))
        if len(delta) > len(x):
            delta[: len(x)] = moved - batch.x
            return {"delta": delta}
        return {"delta": moved - batch.x}

    return update


def _both(turn: Turn, x: Tensor, slopes: list[Tensor]) -> Tensor:
    """Teach the weights, and append the gradient with respect to x."""
    x = x.detach().requires_grad_()
    loss = turn.teach(x)
    assert x.grad is not None
    slopes.append(x.grad)
    return loss


def accumulate(norm: Norm, eps: float, alpha: float, steps: int) -> Update:
    """FreeLB: ascent whose gradients in the weights are averaged over the path, then one step (Zhu et al. 2019, algorithm 1)."""

    def update(turn: Turn, x: Tensor, carry: Carry) -> Carry:
        area = around(norm, eps, turn.batch)
        begin = _inside(area, turn.batch)

        def path() -> Tensor:
            moved, losses, slopes = begin, [], list[Tensor]()
            for step in range(steps):
                moved = moved.detach().requires_grad_()
                losses.append(turn.teach(moved, 1 / steps))
                assert moved.grad is not None
                slopes.append(moved.grad)
                if step + 1 < steps:
                    moved = area.project(moved.detach() + alpha * area.steepest(slopes[-1], moved))
            return torch.stack(losses).mean()

        turn.descend(path)
        return carry

    return update


def _inside(area: Ball, batch: Batch) -> Tensor:
    """A start of entries uniform in +-1, its length at most the radius: in l2 that is divided by the root of their number."""
    draws = random.uniforms(random.fork(batch.key, START), tuple(batch.x.shape[1:])) * 2 - 1
    corner = area.norm.measure(torch.ones_like(batch.x, dtype=torch.float64))
    size = (area.eps / corner).to(draws.dtype)
    return area.project(batch.x + draws * size.reshape(-1, *(1,) * (draws.dim() - 1)))


def yopo(norm: Norm, eps: float, alpha: float, rounds: int, steps: int) -> Update:
    """You only propagate once: after each full pass, several steps through the first layer alone (Zhang et al. 2019, algorithm 1).

    What the full pass says of the first layer's output is held while the rows move; the weights learn from the full passes.
    """

    def update(turn: Turn, x: Tensor, carry: Carry) -> Carry:
        area = around(norm, eps, turn.batch)
        begin = area.sample(random.fork(turn.batch.key, START))

        def passes() -> Tensor:
            moved, losses = begin, []
            for at in range(rounds):
                loss, weight = _costate(turn, moved, 1 / rounds)
                losses.append(loss)
                if at + 1 < rounds:
                    moved = _near(turn.views, area, moved, weight, alpha, steps)
            return torch.stack(losses).mean()

        turn.descend(passes)
        return carry

    return update


def _costate(turn: Turn, x: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Teach the weights at x; returns the loss, and its gradient with respect to what the first layer gives there."""
    out: list[Tensor] = []

    def watched(views: Views, batch: Batch, x: Tensor) -> Tensor:
        logits, given = through_first(views.live, x)
        given.retain_grad()
        out.append(given)
        return torch.nn.functional.cross_entropy(logits, batch.y)

    loss = turn._replace(objective=watched).teach(x, share)
    assert out[0].grad is not None
    return loss, out[0].grad


def _near(views: Views, area: Ball, x: Tensor, weight: Tensor, alpha: float, steps: int) -> Tensor:
    """Steepest ascent of <weight, first layer at x>."""
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad((weight * first(views.masked, x)).sum(), x)
        x = area.project(x.detach() + alpha * area.steepest(grad, x))
    return x.detach()
