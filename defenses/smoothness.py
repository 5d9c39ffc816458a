"""Local distributional smoothness: the prediction shall not change around a row. No label is needed."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sparring.attacks import random
from sparring.contract.defenses import Transform
from sparring.defenses.data import Batch
from sparring.defenses.objectives import kl
from sparring.defenses.perturb import scaled, slope
from sparring.defenses.recipe import Objective
from sparring.defenses.transforms import changed
from sparring.defenses.views import Views

_DIRECTION, _CHANGE = 41, 42  # streams of randomness


class Rows(NamedTuple):
    """Rows whose prediction shall not change: those without labels where there are any, else the batch."""

    x: Tensor
    key: Tensor
    logits: Tensor
    """(N, K), a constant."""


def direction(views: Views, rows: Rows, xi: float, iterations: int) -> Tensor:
    """The direction (N, …), of any length, in which the prediction changes most.

    Power iterations on the Hessian of the divergence by finite differences of length `xi` (Miyato et al. 2017, section 3.3).
    """
    d = random.normals(random.fork(rows.key, _DIRECTION), tuple(rows.x.shape[1:]))
    clean = rows.logits.softmax(1)
    for _ in range(iterations):
        d = slope(views.masked, clean, rows.x + scaled(d, xi))
    return d


def virtual(views: Views, rows: Rows, eps: Tensor | float, xi: float, iterations: int) -> Tensor:
    """KL(p(x) || p(x + r)) (N,) with r of length `eps` in the worst direction; slopes go through p(x + r) alone.

    As in the paper r is not cut at the bounds of the data.
    """
    return kl(rows.logits, views.quiet(rows.x + scaled(direction(views, rows, xi, iterations), eps)))


def entropy(logits: Tensor) -> Tensor:
    """Of each prediction (N,), in nats."""
    told = logits.log_softmax(1)
    return -(told.exp() * told).sum(1)


def _asked(views: Views, batch: Batch, logits: Tensor, *, sloped: bool) -> tuple[Rows, Tensor]:
    """The rows to smooth, and their logits, `sloped` or not. Those of the batch have been looked at already."""
    if batch.spare is None or batch.spare_key is None:
        return Rows(batch.x, batch.key, logits.detach()), logits
    with torch.set_grad_enabled(sloped):
        told = views.quiet(batch.spare)
    return Rows(batch.spare, batch.spare_key, told.detach()), told


def vat(eps: float, xi: float, iterations: int, weight: float, sharpen: float, ramp: float) -> Objective:
    """CE(x) + weight KL(p(x) || p(x + r)) + sharpen(t) H(p(x)) (Miyato et al. 2017, eq. 8; entropy: Grandvalet, Bengio 2004).

    The entropy counts from `ramp` of the training on, with a weight that rises evenly to its full size at the end.
    """

    def objective(views: Views, batch: Batch, x: Tensor) -> Tensor:
        logits = views.live(x)
        rows, told = _asked(views, batch, logits, sloped=sharpen > 0)
        loss = functional.cross_entropy(logits, batch.y) + weight * virtual(views, rows, eps, xi, iterations).mean()
        rise = max(0.0, (batch.done - ramp) / (1 - ramp))
        return loss + sharpen * rise * entropy(told).mean() if sharpen else loss

    return objective


def lds(by: Sequence[str], eps: float, samples: int, weight: float) -> Objective:
    """CE(x) + weight KL(p(x) || p(x~)), x~ under noise of length `eps`, or other changes, drawn at random."""
    pictures: list[Transform] = [name for name in by if name != "noise"]  # type: ignore[misc]  # the contract lists no other names

    def draw(x: Tensor, key: Tensor, batch: Batch) -> Tensor:
        x = changed(pictures, x, key, batch.bounds)
        if "noise" not in by:
            return x
        return x + scaled(random.normals(random.fork(key, _DIRECTION), tuple(x.shape[1:])), eps)

    def objective(views: Views, batch: Batch, x: Tensor) -> Tensor:
        logits = views.live(x)
        rows, _ = _asked(views, batch, logits, sloped=False)
        loss = functional.cross_entropy(logits, batch.y)
        for sample in range(samples):
            key = random.fork(random.fork(rows.key, _CHANGE), sample)
            loss = loss + weight / samples * kl(rows.logits, views.quiet(draw(rows.x, key, batch))).mean()
        return loss

    return objective


Radius = Callable[[Tensor], Tensor]
"""Indices of rows (B,) -> (B,)."""


def imsat(radius: Radius, xi: float, iterations: int, weight: float, balance: float) -> Objective:
    """R_SAT - weight (balance H(Y) - H(Y|X)): Hu et al. 2017, 1702.08720, eqs. 6 and 9; H(Y) is that of the batch's mean prediction."""

    def objective(views: Views, batch: Batch, x: Tensor) -> Tensor:
        logits = views.live(x)
        rows = Rows(x, batch.key, logits.detach())
        mean = logits.softmax(1).mean(0)
        spread = -(mean * mean.clamp_min(1e-12).log()).sum()
        still = virtual(views, rows, radius(batch.row), xi, iterations).mean()
        return still + weight * (entropy(logits).mean() - balance * spread)

    return objective
