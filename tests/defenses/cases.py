"""Small models and data, and every defense of the contract in a form that takes no time."""

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from sparring.attacks import random
from sparring.contract.defenses import (
    ALP,
    DEFENSES,
    LDS,
    MART,
    TRADES,
    VAT,
    YOPO,
    AnyDefense,
    FreeLB,
    FriendlyTraining,
    GradientPenalty,
    Noise,
    PGDTraining,
)
from sparring.defenses.data import Batch, Data, in_memory

LIGHT: dict[str, AnyDefense] = {
    "pgd": PGDTraining(steps=2, eps=0.1),
    "trades": TRADES(steps=2, eps=0.1),
    "mart": MART(steps=2, eps=0.1),
    "alp": ALP(steps=2, eps=0.1),
    "friendly": FriendlyTraining(steps=2, eps=0.1),
    "yopo": YOPO(rounds=2, steps=2, eps=0.1),
}
OTHERS: tuple[AnyDefense, ...] = (
    Noise(where="layers", distribution="bernoulli", samples=2),
    Noise(where="weights", distribution="uniform"),
    Noise(distribution="uniform", samples=2),
    GradientPenalty(of="loss_l1"),
    GradientPenalty(of="loss_l2"),
    GradientPenalty(of="jacobian", samples=0),
    GradientPenalty(of="fisher"),
    LDS(by=("flip", "shift", "rotate", "colour", "noise"), samples=2),
    VAT(iterations=2, entropy=0.01, ramp=0.0),
    PGDTraining(norm="l2", steps=2),
    PGDTraining(inner="folded", steps=2),
    FreeLB(norm="linf"),
)
EVERY: tuple[AnyDefense, ...] = (*(LIGHT.get(kind().kind, kind()) for kind in DEFENSES), *OTHERS)
IDS = [spec.kind if at < len(DEFENSES) else f"{spec.kind}-{at}" for at, spec in enumerate(EVERY)]


@cache
def digits(rows: int = 80) -> Data:
    x, y = load_digits(return_X_y=True)
    return in_memory(torch.tensor(x[:rows] / 16).float().reshape(-1, 1, 8, 8), torch.tensor(y[:rows]))


def mlp(seed: int = 0, width: int = 32) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))


def convolutional(seed: int = 0) -> nn.Module:
    """Without batch norm and dropout."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Softplus(), nn.Conv2d(4, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 10)
    )


def normed(seed: int = 0) -> nn.Module:
    """With batch norm and dropout."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(36, 10),
    )


def batch(rows: int = 12, seed: int = 0) -> Batch:
    data, row = digits(), torch.arange(rows)
    assert data.labels is not None
    return Batch(data.rows(row), data.labels[row], random.keys(seed, row), row, data.bounds)


def same(first: nn.Module, second: nn.Module) -> bool:
    """Weights and running statistics are equal, bit for bit."""
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(name == other and torch.equal(one, two) for (name, one), (other, two) in pairs)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
