"""Plain training: the loop every defense is measured against."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def fit(model: nn.Module, x: Tensor, labels: Tensor, *, epochs: int, batch: int = 64, rate: float = 2e-3, seed: int = 0) -> Iterator[float]:
    """Minimise cross-entropy with Adam; yields the mean loss of each epoch, in nats.

    Args:
        model: maps (B, …) to logits (B, K); trained in place and left in evaluation mode.
        x: (N, …) float32.
        labels: (N,) int64.
        epochs: passes over the data.
        batch: rows of one step.
        rate: Adam's learning rate, annealed to 0 along a cosine.
        seed: of the order of rows.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        model.train()
        total = 0.0
        order = torch.randperm(len(x), generator=generator)
        for index in (order[at : at + batch] for at in range(0, len(x), batch)):
            loss = nn.functional.cross_entropy(model(x[index]), labels[index])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            total += float(loss.detach()) * len(index)
        schedule.step()
        model.eval()
        yield total / len(x)
