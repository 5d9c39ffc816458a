"""What is minimised: (views, batch, x') -> loss (), in nats and a mean over rows."""

from collections.abc import Callable, Collection
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from sparring.attacks import random
from sparring.attacks.rows import per_row
from sparring.defenses.data import Batch
from sparring.defenses.layers import shaken
from sparring.defenses.recipe import Objective
from sparring.defenses.views import Views

_NOISE, _MIXED = 31, 32  # streams of randomness
_ROUNDS = 48
"""Tries at a draw of which at least every second one is kept."""
_OFFSET = 1.0001  # what MART's margin is counted from, so that its logarithm stays finite
Draw = Callable[[Tensor, torch.Generator], Tensor]
"""A tensor -> itself under noise."""


def on_perturbed(views: Views, batch: Batch, x: Tensor) -> Tensor:
    """Cross-entropy at x'."""
    return functional.cross_entropy(views.live(x), batch.y)


def on_both(views: Views, batch: Batch, x: Tensor) -> Tensor:
    """(CE(x) + CE(x')) / 2, slopes through both (Goodfellow, Shlens, Szegedy 2014, 1412.6572, section 6, with alpha 1/2)."""
    return _halved(views.live(batch.x), views.live(x), batch.y)


def _halved(clean: Tensor, moved: Tensor, labels: Tensor) -> Tensor:
    return (functional.cross_entropy(clean, labels) + functional.cross_entropy(moved, labels)) / 2


def smoothed(share: float) -> Objective:
    """Cross-entropy against labels of which a share is spread over all classes (Szegedy et al. 2015, 1512.00567, section 7)."""
    return lambda views, batch, x: functional.cross_entropy(views.live(x), batch.y, label_smoothing=share)


def kl(clean: Tensor, moved: Tensor) -> Tensor:
    """KL(p || p') (B,) in nats, from logits (B, K). Slopes go through both; detach what shall be constant."""
    told = clean.log_softmax(1)
    return (told.exp() * (told - moved.log_softmax(1))).sum(1)


def trades(beta: float) -> Objective:
    """CE(x) + beta KL(p(x) || p(x')), slopes through both (Zhang et al. 2019, 1901.08573, eq. 5, KL as in the code)."""

    def objective(views: Views, batch: Batch, x: Tensor) -> Tensor:
        clean = views.live(batch.x)
        return functional.cross_entropy(clean, batch.y) + beta * kl(clean, views.live(x)).mean()

    return objective


def logits_paired(weight: float) -> Objective:
    """(CE(x) + CE(x')) / 2 + weight ||z(x) - z(x')||^2, slopes through both (Kannan et al. 2018, 1803.06373, section 4)."""

    def objective(views: Views, batch: Batch, x: Tensor) -> Tensor:
        clean, moved = views.live(batch.x), views.live(x)
        return _halved(clean, moved, batch.y) + weight * (clean - moved).square().sum(1).mean()

    return objective


def mart(beta: float, margin: float) -> Objective:
    """CE(x') - log(1 - max_k p'_k) + beta KL(p || p') (1 - p_y), k any class but the label (Wang et al. 2020, eq. 11)."""

    def objective(views: Views, batch: Batch, x: Tensor) -> Tensor:
        moved, clean = views.live(x), views.live(batch.x)
        rival = moved.softmax(1).scatter(1, batch.y[:, None], 0.0).amax(1)
        doubt = 1 - clean.softmax(1).gather(1, batch.y[:, None]).squeeze(1)
        learnt = functional.cross_entropy(moved, batch.y) - margin * (_OFFSET - rival).log().mean()
        return learnt + beta * (kl(clean, moved) * doubt).mean()

    return objective


def shares(key: Tensor, alpha: float) -> Tensor:
    """Draws (B,) from Beta(alpha, alpha), alpha at most 1 (Jöhnk 1964: u^(1/a) / (u^(1/a) + v^(1/a)), kept where the sum is at most 1)."""
    u, v = (random.uniforms(random.fork(random.fork(key, _MIXED), at), (_ROUNDS,)).double().log() / alpha for at in range(2))
    kept = (torch.logaddexp(u, v) <= 0).to(torch.int8).argmax(1, keepdim=True)
    return (u - v).sigmoid().gather(1, kept).squeeze(1)


def mixed(alpha: float) -> Objective:
    """Cross-entropy of mixed rows with mixed labels (Zhang et al. 2017, 1710.09412, eq. 1); with alpha 0 no row is mixed.

    s CE(x~, y) + (1 - s) CE(x~, y_j) at x~ = s x + (1 - s) x_j, with j another row of the batch and s ~ Beta(alpha, alpha) each row's own.
    """
    if not alpha:
        return on_perturbed

    def objective(views: Views, batch: Batch, x: Tensor) -> Tensor:
        other = random.fork(batch.key, _MIXED).argsort()
        share = shares(batch.key, alpha).to(x.dtype)
        logits = views.live(torch.lerp(x[other], x, per_row(share, x)))
        own, others = (functional.cross_entropy(logits, labels, reduction="none") for labels in (batch.y, batch.y[other]))
        return torch.lerp(others, own, share).mean()

    return objective


def noisy_input(draw: Callable[[Tensor, Tensor], Tensor], samples: int) -> Objective:
    """The mean cross-entropy over draws of noise at the input; `draw` is (x, key) -> noisy x."""

    def objective(views: Views, batch: Batch, x: Tensor) -> Tensor:
        keys = [random.fork(random.fork(batch.key, _NOISE), sample) for sample in range(samples)]
        return _mean([functional.cross_entropy(views.live(draw(x, key)), batch.y) for key in keys])

    return objective


def noisy_layers(draw: Draw, samples: int, layers: Collection[int]) -> Objective:
    """The mean cross-entropy over draws of noise on what enters these layers, the second being 1; none named means all of them."""

    def objective(views: Views, batch: Batch, x: Tensor) -> Tensor:
        losses = []
        for at in range(samples):
            logits = shaken(views.live, x, partial(_drawn, draw, _source(batch, at), layers))
            losses.append(functional.cross_entropy(logits, batch.y))
        return _mean(losses)

    return objective


def dropped(p: float) -> Objective:
    """Cross-entropy where entries of what enters each layer but the first are dropped (Srivastava et al. 2014).

    Every pass of an update drops the same ones.
    """

    def objective(views: Views, batch: Batch, x: Tensor) -> Tensor:
        return functional.cross_entropy(shaken(views.live, x, lambda entering, layer: functional.dropout(entering, p)), batch.y)

    return objective


def noisy_weights(draw: Draw, samples: int) -> Objective:
    """The mean cross-entropy over draws of noise on the weights of layers, by whose gradients the weights themselves step."""

    def objective(views: Views, batch: Batch, x: Tensor) -> Tensor:
        losses = []
        for at in range(samples):
            source = _source(batch, at)
            weights = {name: draw(weight, source) for name, weight in views.model.named_parameters() if weight.dim() > 1}
            losses.append(functional.cross_entropy(views.live(x, weights), batch.y))
        return _mean(losses)

    return objective


def _drawn(draw: Draw, source: torch.Generator, layers: Collection[int], entering: Tensor, layer: int) -> Tensor:
    return draw(entering, source) if not layers or layer in layers else entering


def _source(batch: Batch, sample: int) -> torch.Generator:
    """Draws for what has no rows, a function of the batch."""
    seed = int(random.fork(random.fork(batch.key[:1], _NOISE), sample))
    return torch.Generator(batch.x.device).manual_seed(seed)


def _mean(losses: list[Tensor]) -> Tensor:
    return losses[0] if len(losses) == 1 else torch.stack(losses).mean()
