"""Plain training in one line."""

from collections.abc import Iterator

from torch import Tensor, nn

from sparring.contract.defenses import Plain, Training
from sparring.defenses.data import in_memory
from sparring.defenses.training import train


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
    settings = Training(epochs=epochs, batch=batch, rate=rate, seed=seed, monitor=0)
    return (told.loss for told in train(model, Plain(), in_memory(x, labels), settings))
