"""Certificates by randomized smoothing: a radius in l2 within which the smoothed model keeps its class.

Cohen, Rosenfeld, Kolter 2019, 1902.02918, algorithm CERTIFY: the class is selected on some draws, and its probability bounded from
below on others, so that the statement holds with probability 1 - alpha for each row.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.contract.defenses import SmoothingCertificate
from sparring.contract.quantity import value
from sparring.defenses.layers import Model

_SELECT, _BOUND = 81, 82  # streams of randomness
_HALVINGS = 60
ABSTAINED = -1


class Certificate(NamedTuple):
    """What is known of each row."""

    labels: Tensor
    """(B,) int64: the smoothed model's class; -1 where there is no certificate."""
    radius: Tensor
    """(B,) float64, l2, in units of the data; 0 where there is none."""
    probability: Tensor
    """(B,) float64: lower bound of that of the class under the noise."""


@torch.no_grad()
def certify(model: Model, x: Tensor, key: Tensor, spec: SmoothingCertificate) -> Certificate:
    """Certificates of rows x (B, …) whose draws are seeded by `key` (B,). The noise is not cut at the bounds of the data."""
    sigma = value(spec.sigma)
    chosen = _counts(model, x, random.fork(key, _SELECT), sigma, spec.selection).argmax(1)
    hits = _counts(model, x, random.fork(key, _BOUND), sigma, spec.samples).gather(1, chosen[:, None]).squeeze(1)
    least = at_least(hits, spec.samples, spec.alpha)
    sure = least > 0.5
    radius = torch.where(sure, sigma * torch.special.ndtri(least.clamp(0.5, 1 - 1e-15)), 0.0)
    return Certificate(torch.where(sure, chosen, ABSTAINED), radius, least)


def _counts(model: Model, x: Tensor, key: Tensor, sigma: float, draws: int) -> Tensor:
    """(B, K) int64: how often each class is predicted under noise."""
    counts: Tensor | None = None
    for draw in range(draws):
        noise = random.normals(random.fork(key, draw), tuple(x.shape[1:]))
        logits = model(x + sigma * noise)
        counts = torch.zeros(logits.shape, dtype=torch.int64, device=x.device) if counts is None else counts
        counts.scatter_add_(1, logits.argmax(1, keepdim=True), torch.ones_like(counts[:, :1]))
    assert counts is not None
    return counts


def at_least(hits: Tensor, draws: int, alpha: float) -> Tensor:
    """One-sided lower bound (B,) float64 of a probability after so many hits (B,) in `draws` (Clopper, Pearson 1934).

    The largest p, to 60 bits, at which so many hits or more still have a probability of at most `alpha`.
    """
    distinct, place = torch.unique(hits, return_inverse=True)
    found = torch.stack([_at_least(int(count), draws, alpha) for count in distinct.tolist()])
    return found.to(hits.device)[place]


def _at_least(hits: int, draws: int, alpha: float) -> Tensor:
    low, high = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    if hits == 0:
        return low
    more = torch.arange(hits, draws + 1, dtype=torch.float64)
    total = torch.tensor(draws, dtype=torch.float64)
    ways = torch.lgamma(total + 1) - torch.lgamma(more + 1) - torch.lgamma(total - more + 1)
    for _ in range(_HALVINGS):
        p = (low + high) / 2
        tail = (ways + torch.xlogy(more, p) + torch.xlogy(total - more, 1 - p)).exp().sum()
        low, high = (p, high) if tail <= alpha else (low, p)
    return low
