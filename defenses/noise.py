"""Kinds of noise, on rows (keyed, each row's own draw) and on what has no rows (layers, weights)."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from sparring.attacks import random

Distribution = Literal["gaussian", "uniform", "bernoulli"]


def _multiplied(distribution: Distribution, size: float, uniform: Tensor) -> Tensor:
    """Factors of mean 1, from uniform draws."""
    if distribution == "uniform":
        return 1 + size * (2 * uniform - 1)
    return (uniform >= size).to(uniform.dtype) / (1 - size)


def on_rows(distribution: Distribution, size: float, unit: float) -> Callable[[Tensor, Tensor], Tensor]:
    """(x (B, …), key (B,)) -> noisy x; Gaussian noise has standard deviation `size * unit`."""

    def draw(x: Tensor, key: Tensor) -> Tensor:
        shape = tuple(x.shape[1:])
        if distribution == "gaussian":
            return x + size * unit * random.normals(key, shape)
        return x * _multiplied(distribution, size, random.uniforms(key, shape))

    return draw


def anywhere(distribution: Distribution, size: float) -> Callable[[Tensor, torch.Generator], Tensor]:
    """(tensor, generator) -> the same under noise; Gaussian noise is `size` times as large as a typical entry."""

    def draw(x: Tensor, source: torch.Generator) -> Tensor:
        if distribution == "gaussian":
            typical = x.detach().square().mean().sqrt()
            return x + size * typical * torch.randn(x.shape, generator=source, device=x.device)
        return x * _multiplied(distribution, size, torch.rand(x.shape, generator=source, device=x.device))

    return draw
