"""8 by 8 digits: robustness of a small network trained in every way, also on rows made on another, with 50 labels, and without any."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from page import Measured
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from sparring.attacks import catalogue, random
from sparring.attacks.access import Target
from sparring.attacks.norms import ball
from sparring.attacks.problem import Goal, Problem, problem
from sparring.attacks.search import search_copy
from sparring.contract.attacks import FGSM, PGD, AttackSpec
from sparring.contract.defenses import Training
from sparring.defenses.data import Data, in_memory
from sparring.defenses.imsat import matched
from sparring.defenses.training import train
from sparring.parsing import defense

EPS = 0.1
"""In linf, for digits in [0, 1]."""
SINGLE: tuple[AttackSpec, ...] = (FGSM(),)
SEVERAL: tuple[AttackSpec, ...] = tuple(PGD(steps=50, alpha=0.01, restarts=5, loss=loss) for loss in ("ce", "margin"))
HOLD: dict[str, tuple[str, ...]] = {
    "plain": ("96.9 ± 0.1", "41.2 ± 1.4", "33.5 ± 1.9"),
    "noise:size=0.1": ("97.9 ± 0.3", "60.2 ± 1.4", "55.5 ± 1.2"),
    "weight_penalty:l2=1e-3": ("97.0 ± 0.3", "55.6 ± 1.1", "49.0 ± 0.9"),
    "gradient_penalty:of=fisher,weight=0.5": ("92.5 ± 1.6", "74.5 ± 1.5", "68.0 ± 2.2"),
    "vat:eps=0.8": ("97.4 ± 0.3", "84.3 ± 1.5", "79.4 ± 1.3"),
    "fgsm:eps=0.1": ("98.4 ± 0.3", "86.1 ± 0.7", "83.2 ± 0.3"),
    "fast:eps=0.1": ("98.7 ± 0.3", "85.0 ± 1.4", "81.2 ± 1.3"),
    "pgd:eps=0.1": ("98.6 ± 0.4", "85.6 ± 0.6", "84.0 ± 0.5"),
    "trades:eps=0.1": ("98.4 ± 0.3", "88.1 ± 0.6", "86.2 ± 0.3"),
    "free:eps=0.1": (),
    "freelb:eps=0.1,norm=linf": (),
    "yopo:eps=0.1": (),
    "mart:eps=0.1": (),
    "weight_penalty:l1=1e-4,l2=0": (),
    "dropout": (),
    "gradient_penalty": (),
    "gradient_penalty:of=loss_l1,weight=0.1": (),
    "lds:eps=1.5": (),
    "vat": (),
    "label_smoothing": (),
}
"""Ways to train, and what each comes to in the reference: clean, under the single step, under several."""
TRANSFER = ("plain", "fgsm:eps=0.1", "pgd:eps=0.1", "ensemble:eps=0.1", "ensemble:eps=0.1,clean=false")
"""Ways to train that are shown what was made on a model that nobody trained against."""
FEW = {
    "vat:weight=0": "14.8 ± 2.5",
    "vat:weight=0,entropy=1,ramp=0": "13.4 ± 1.1",
    "vat:eps=0.8": "7.4 ± 1.3",
    "vat:eps=0.8,entropy=1,ramp=0": "13.2 ± 4.3",
    "vat:eps=0.8,entropy=1": "",
}
"""Ways to learn from 50 labels and the other rows without theirs, and the error of each in the reference."""


def network(seed: int, *widths: int, normed: bool = False) -> nn.Module:
    """Linear layers with ReLU between them, and batch norm if so wished."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), *([nn.BatchNorm1d(outputs)] if normed else []), nn.ReLU()]
    return nn.Sequential(*layers[: -2 if normed else -1])


def error(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Rows that are wrong, in per cent."""
    with torch.no_grad():
        return 100 * float((model(x).argmax(1) != y).float().mean())


def robust(model: nn.Module, x: Tensor, y: Tensor, attacks: Sequence[AttackSpec]) -> float:
    """Rows that stay right under every attack, in per cent."""
    target = Target(model, search_copy(model)[0], 64)
    standing = torch.nonzero(target.labels(x) == y).flatten()
    for attack in attacks:
        standing = standing[~catalogue.run(attack, EPS, target, asked(x, y, standing)).success]
    return 100 * len(standing) / len(x)


def asked(x: Tensor, y: Tensor, rows: Tensor) -> Problem:
    """Some of the rows, to be attacked within EPS."""
    eps = torch.full((len(rows),), EPS, dtype=torch.float64)
    return problem(Goal(y[rows]), ball("linf", x[rows], eps, (0.0, 1.0)), random.keys(0, rows))


def split() -> tuple[Data, Tensor, Tensor]:
    """Digits to learn from, and to test on."""
    x, y = load_digits(return_X_y=True)
    x, test, y, labels = train_test_split(x / 16, y, test_size=0.2, random_state=0, stratify=y)
    return in_memory(torch.tensor(x).float(), torch.tensor(y)), torch.tensor(test).float(), torch.tensor(labels)


def hold(seeds: int) -> Iterator[Measured]:
    """Accuracy in per cent: clean, under FGSM, under PGD."""
    data, x, y = split()
    for text, reference in HOLD.items():
        found = []
        for seed in range(seeds):
            model = network(seed, 64, 256, 256, 10)
            list(train(model, defense(text), data, Training(epochs=60, schedule="constant", monitor=0, seed=seed)))
            found.append((100 - error(model, x, y), robust(model, x, y, SINGLE), robust(model, x, y, (*SINGLE, *SEVERAL))))
        yield Measured(text, tuple(zip(*found, strict=True)), reference)


def transfer(seeds: int) -> Iterator[Measured]:
    """Accuracy in per cent: clean, on rows moved by PGD against a model that nobody knew, and under PGD against its own weights."""
    data, x, y = split()

    def learnt(text: str, model: nn.Module, seed: int, surrogates: Sequence[nn.Module] = ()) -> nn.Module:
        settings = Training(epochs=60, schedule="constant", monitor=0, seed=seed)
        list(train(model, defense(text), data, settings, surrogates=surrogates if text.startswith("ensemble") else ()))
        return model

    known = [[learnt("plain", network(100 + seed, 64, *widths, 10), 100 + seed) for widths in ((128,), (64, 64))] for seed in range(seeds)]
    shown = [moved(learnt("plain", network(200 + seed, 64, 256, 256, 10), 200 + seed), x, y) for seed in range(seeds)]
    for text in TRANSFER:
        found = []
        for seed in range(seeds):
            model = learnt(text, network(seed, 64, 256, 256, 10), seed, known[seed])
            own = robust(model, x, y, (*SINGLE, *SEVERAL))
            found.append((100 - error(model, x, y), 100 - error(model, shown[seed], y), own))
        yield Measured(text, tuple(zip(*found, strict=True)))


def moved(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The rows, each moved by all of PGD's steps against this model."""
    whole = asked(x, y, torch.arange(len(x)))._replace(stop=False)
    return catalogue.run(PGD(steps=50, alpha=0.01), EPS, Target(model, search_copy(model)[0], 64), whole).x


def few(seeds: int) -> Iterator[Measured]:
    """Test error in per cent with 5 labelled rows of each digit."""
    data, x, y = split()
    assert data.labels is not None
    for text, reference in FEW.items():
        errors = []
        for seed in range(seeds):
            order = torch.randperm(data.size, generator=torch.Generator().manual_seed(seed))
            chosen = torch.cat([order[data.labels[order] == label][:5] for label in range(10)])
            model = network(seed, 64, 256, 256, 10)
            known = in_memory(data.rows(chosen), data.labels[chosen])
            settings = Training(epochs=150, batch=50, schedule="constant", monitor=0, seed=seed)
            list(train(model, defense(text), known, settings, unlabelled=in_memory(data.rows(torch.arange(data.size)))))
            errors.append(error(model, x, y))
        yield Measured(text, (errors,), (reference,))


def clusters(seeds: int) -> Iterator[Measured]:
    """Accuracy in per cent, clusters named in the best way."""
    x, y = load_digits(return_X_y=True)
    rows, truth = torch.tensor(x / 16).float(), torch.tensor(y)
    found = [torch.tensor(KMeans(10, n_init=10, random_state=seed).fit_predict(x)).long() for seed in range(seeds)]
    yield Measured("k-means", ([100 * matched(each, truth) / len(x) for each in found],), ("79.3",))
    for text, reference in {"imsat": "86.6 ± 1.1", "imsat:xi=10": "78.5 ± 3.2"}.items():
        accuracies = []
        for seed in range(seeds):
            model = network(seed, 64, 400, 400, 10, normed=True)
            nn.init.normal_(list(model.parameters())[-2], std=1e-4)
            list(train(model, defense(text), in_memory(rows), Training(epochs=60, batch=250, rate=0.002, monitor=0, seed=seed)))
            with torch.no_grad():
                accuracies.append(100 * matched(model(rows).argmax(1), truth) / len(x))
        yield Measured(text, (accuracies,), (reference,))
