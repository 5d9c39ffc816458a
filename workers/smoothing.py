"""The smoothed model of a certificate, made so that it can be attacked and judged: noise whose draws are the same for every row.

Were each row's noise its own, its place among others would decide what it is answered.
"""

import math

import torch
from torch import Tensor, nn

from sparring.attacks import random
from sparring.contract.defenses import SmoothingCertificate
from sparring.contract.quantity import value

VOTES, SLOPES = 101, 16
"""Draws by whose majority it is judged, and others over which slopes are averaged."""
_JUDGE, _CLIMB = 83, 84  # streams of randomness


class _Noisy(nn.Module):
    def __init__(self, model: nn.Module, sigma: float, stream: int, draws: int) -> None:
        super().__init__()
        self.model, self.sigma, self.draws = model, sigma, draws
        self.key = nn.Buffer(random.fork(random.keys(0, torch.arange(draws)), stream), persistent=False)

    def seen(self, x: Tensor, draw: int) -> Tensor:
        """Logits (B, K) of the rows under one draw."""
        noise = random.normals(self.key[draw : draw + 1], tuple(x.shape[1:]))
        logits: Tensor = self.model(x + self.sigma * noise)
        return logits


class Voted(_Noisy):
    """How many draws call a row by each class: the smoothed model itself, but for the number of draws. NaN where a draw gives NaN."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> logits (B, K) float32, the logarithm of one more than the votes."""
        votes = torch.zeros((), device=x.device)
        for draw in range(self.draws):
            logits = self.seen(x, draw)
            vote = nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()
            votes = votes + torch.where(torch.isfinite(logits).all(1, keepdim=True), vote, torch.nan)
        return (votes + 1).log()


class Averaged(_Noisy):
    """The mean prediction over the draws, which has a slope: expectation over transformation (Athalye et al. 2018, 1707.07397)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> logits (B, K): the logarithm of the mean probabilities."""
        told = [self.seen(x, draw).log_softmax(1) for draw in range(self.draws)]
        return torch.stack(told).logsumexp(0) - math.log(self.draws)


def judge(model: nn.Module, spec: SmoothingCertificate) -> nn.Module:
    """The smoothed model that has the last word."""
    return Voted(model, value(spec.sigma), _JUDGE, VOTES)


def climber(model: nn.Module, spec: SmoothingCertificate) -> nn.Module:
    """The smoothed model that is climbed."""
    return Averaged(model, value(spec.sigma), _CLIMB, SLOPES)


def method(spec: SmoothingCertificate) -> str:
    """How the rows were certified, in words."""
    return (
        f"randomized smoothing with noise of standard deviation {value(spec.sigma):g}: the class selected on {spec.selection} draws, its "
        f"probability bounded on {spec.samples} others, each certificate wrong with a probability of at most {spec.alpha:g}"
    )
