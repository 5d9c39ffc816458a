"""What attackers who know more and less leave of a small model on digits: the figures that papers on access compare."""

import numpy as np
import torch
from attacks.cases import Taught
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from sparring.attacks import catalogue, random
from sparring.attacks import problem as problems
from sparring.attacks.access import Target
from sparring.attacks.norms import ball
from sparring.attacks.problem import Goal
from sparring.attacks.search import search_copy
from sparring.attacks.transfer import substitute
from sparring.contract.attacks import FGSM, AttackSpec, Substitute, Transfer
from sparring.defenses.fit import fit

EPS, SEEDS = 0.1, 3


def _rows() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images.astype(np.float32) / 16, labels, test_size=0.2, random_state=0, stratify=labels)
    return tuple(torch.from_numpy(part) for part in split)  # type: ignore[return-value]


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def _trained(model: nn.Module, x: Tensor, y: Tensor, epochs: int, seed: int) -> Target:
    for _ in fit(model, x, y, epochs=epochs, rate=1e-3, seed=seed):
        pass
    model.requires_grad_(False)
    return Target(model, search_copy(model)[0], 64)


def figures() -> tuple[float, float, float]:
    """Percent of the test rows still right after FGSM with the weights, from another seed's weights, and from a substitute; means."""
    x, test_x, y, test_y = _rows()
    left = [_once(x, y, test_x, test_y, seed) for seed in range(SEEDS)]
    white, gray, black = (100 * sum(each) / SEEDS for each in zip(*left, strict=True))
    return white, gray, black


def _once(x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor, seed: int) -> tuple[float, float, float]:
    torch.manual_seed(seed)
    target = _trained(_network(), x, y, 60, seed)
    surrogate = _trained(_network(), x, y, 60, SEEDS + seed)

    def learn(rows: Tensor, answers: Tensor) -> Target:
        model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
        return _trained(model, rows, answers, 10, seed)

    student, asked = substitute(target.labels, x[torch.randperm(len(x))[:150]], 6, 0.1, (0.0, 1.0), learn)
    assert len(asked) == 4800

    def left(spec: AttackSpec, own: Target) -> float:
        radius = torch.full((len(test_x),), EPS, dtype=torch.float64)
        keys = random.keys(seed, torch.arange(len(test_x)))
        asked = problems.problem(Goal(test_y), ball("linf", test_x, radius, (0.0, 1.0)), keys)
        broken = catalogue.run(spec, EPS, target, asked, Taught(own)).success
        return float(((target.labels(test_x) == test_y) & ~broken).float().mean())

    return left(FGSM(), target), left(Transfer(attack=FGSM()), surrogate), left(Substitute(attack=FGSM()), student)
