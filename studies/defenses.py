"""What the defenses do, in tables: `make studies ARGS='--only toys --seeds 5'`. Each figure is a mean and a spread over seeds.

toys: circles and moons, 8 rows of each class, in two dimensions that a fixed random map puts into a hundred.
digits: robustness of a small network on 8 by 8 digits, trained in every way.
labels: digits of which only 50 have labels.
clusters: digits without any.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from sparring.attacks import catalogue, random
from sparring.attacks.access import Target
from sparring.attacks.norms import ball
from sparring.attacks.problem import Goal, problem
from sparring.attacks.search import search_copy
from sparring.contract.attacks import FGSM, PGD, AttackSpec
from sparring.contract.defenses import (
    IMSAT,
    LDS,
    MART,
    TRADES,
    VAT,
    YOPO,
    AnyDefense,
    Dropout,
    FastTraining,
    FGSMTraining,
    FreeLB,
    FreeTraining,
    GradientPenalty,
    LabelSmoothing,
    Noise,
    PGDTraining,
    Plain,
    Training,
    WeightPenalty,
)
from sparring.defenses.data import Data, in_memory
from sparring.defenses.imsat import matched
from sparring.defenses.training import train

EPS = 0.1
"""In linf, for digits in [0, 1]."""
INNER, NOISE = 0.6, 0.05
"""Radius of the inner circle, and standard deviation of what is added to points of the toys."""
ATTACKS: tuple[AttackSpec, ...] = (FGSM(), PGD(steps=50, alpha=0.01, restarts=3), PGD(steps=50, alpha=0.01, restarts=3, loss="margin"))
Row = tuple[str, Sequence[float]]


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
    area = ball("linf", x, torch.full((len(x),), EPS, dtype=torch.float64), (0.0, 1.0))
    asked = problem(Goal(y), area, random.keys(0, torch.arange(len(x))))
    stands = target.labels(x) == y
    for attack in attacks:
        stands &= ~catalogue.run(attack, EPS, target, asked).success
    return 100 * float(stands.float().mean())


def _about_evenly(rows: int, source: torch.Generator) -> Tensor:
    """One draw from each of as many parts of the unit interval as a class has rows."""
    part = torch.arange(rows) // 2
    return (part + torch.rand(rows, generator=source)) / (rows / 2)


def circles(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points (N, 2) spread about evenly over two circles about the origin, with a little noise, and which circle."""
    source = torch.Generator().manual_seed(seed)
    y = torch.arange(rows) % 2
    angle = 2 * torch.pi * _about_evenly(rows, source)
    points = torch.stack((angle.cos(), angle.sin()), 1) * torch.where(y == 0, 1.0, INNER)[:, None]
    return points + NOISE * torch.randn(rows, 2, generator=source), y


def moons(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points (N, 2) spread about evenly over two half circles that reach into each other, with a little noise, and which half circle."""
    source = torch.Generator().manual_seed(seed)
    y = torch.arange(rows) % 2
    angle = torch.pi * _about_evenly(rows, source)
    turned = torch.stack((1 - angle.cos(), 0.5 - angle.sin()), 1)
    points = torch.where(y[:, None] == 0, torch.stack((angle.cos(), angle.sin()), 1), turned)
    return points + NOISE * torch.randn(rows, 2, generator=source), y


def lifted(points: Tensor) -> Tensor:
    """Points (N, 2) in a hundred dimensions (N, 100), by a random map of rank 2 that is always the same."""
    plane: Tensor = torch.linalg.qr(torch.randn(100, 2, generator=torch.Generator().manual_seed(0)))[0]
    return points @ plane.T


def taught(spec: AnyDefense, draw: Callable[[int, int], tuple[Tensor, Tensor]], seed: int) -> nn.Module:
    """A network of one hidden layer that has learnt from 8 points of each class."""
    few, labels = draw(16, seed)
    model = network(seed, 100, 100, 2)
    settings = Training(epochs=1000, batch=16, optimizer="sgd", rate=0.1, monitor=0, seed=seed)
    list(train(model, spec, in_memory(lifted(few), labels, None), settings))
    return model


def toys(seeds: int) -> Iterator[Row]:
    """Test error in per cent."""
    for name, draw in (("circles", circles), ("moons", moons)):
        x, y = draw(1000, 10_000)
        for spec in (Plain(), Dropout(), WeightPenalty(l2=1e-4), VAT(), VAT(eps=0.15), LDS()):
            errors = [error(taught(spec, draw, seed), lifted(x), y) for seed in range(seeds)]
            yield f"{name} {spec.kind} {getattr(spec, 'eps', None) or ''}", errors


def drawn(path: Path) -> None:
    """Draw where networks decide that have learnt from 8 points of each of two circles, without VAT and with it."""
    side = torch.linspace(-1.6, 1.6, 200)
    grid = torch.cartesian_prod(side, side)
    few, labels = (part.numpy() for part in circles(16, 0))
    page = Figure(figsize=(8, 4.2), layout="constrained")
    specs: tuple[AnyDefense, AnyDefense] = Plain(), VAT()
    for axes, spec in zip(page.subplots(1, 2), specs, strict=True):
        model = taught(spec, circles, 0)
        with torch.no_grad():
            sure = model(lifted(grid)).softmax(1)[:, 1].reshape(200, 200).T.numpy()
        axes.contourf(side.numpy(), side.numpy(), sure, levels=[0, 0.1, 0.3, 0.5, 0.7, 0.9, 1], cmap="RdBu", alpha=0.6)
        axes.contour(side.numpy(), side.numpy(), sure, levels=[0.5], colors="black", linewidths=1)
        axes.scatter(*few.T, c=labels, cmap="RdBu", edgecolors="black", zorder=3)
        x, y = circles(1000, 10_000)
        axes.set(title=f"{spec.title}: {error(model, lifted(x), y):.1f} % wrong", aspect="equal", xticks=[], yticks=[])
    page.savefig(path, dpi=100)


def split() -> tuple[Data, Tensor, Tensor]:
    """Digits to learn from, and to test on."""
    x, y = load_digits(return_X_y=True)
    x, test, y, labels = train_test_split(x / 16, y, test_size=0.2, random_state=0, stratify=y)
    return in_memory(torch.tensor(x).float(), torch.tensor(y)), torch.tensor(test).float(), torch.tensor(labels)


def digits(seeds: int) -> Iterator[Row]:
    """Accuracy in per cent: clean, under FGSM, under PGD."""
    data, x, y = split()
    specs: list[AnyDefense] = [
        Plain(), LabelSmoothing(), WeightPenalty(), Dropout(), Noise(), GradientPenalty(), GradientPenalty(of="fisher", weight=0.5),
        LDS(eps=1.5), VAT(), VAT(eps=0.8), FGSMTraining(eps=EPS), FastTraining(eps=EPS), PGDTraining(eps=EPS), FreeTraining(eps=EPS),
        YOPO(eps=EPS), FreeLB(eps=EPS, norm="linf"), TRADES(eps=EPS), MART(eps=EPS),
    ]  # fmt: skip
    for spec in specs:
        found: list[list[float]] = [[], [], []]
        for seed in range(seeds):
            model = network(seed, 64, 256, 256, 10)
            list(train(model, spec, data, Training(epochs=60, monitor=0, seed=seed)))
            for at, figure in enumerate((100 - error(model, x, y), robust(model, x, y, ATTACKS[:1]), robust(model, x, y, ATTACKS))):
                found[at].append(figure)
        for name, figures in zip(("clean", "fgsm", "pgd"), found, strict=True):
            yield f"{spec.kind} {getattr(spec, 'of', None) or getattr(spec, 'eps', None) or ''} {name}", figures


def labels(seeds: int) -> Iterator[Row]:
    """Test error in per cent with 5 labelled rows of each digit."""
    data, x, y = split()
    assert data.labels is not None
    for name, spec in (("none", VAT(weight=0)), ("lds", LDS()), ("vat", VAT()), ("vat and entropy", VAT(entropy=1.0))):
        errors = []
        for seed in range(seeds):
            order = torch.randperm(data.size, generator=torch.Generator().manual_seed(seed))
            chosen = torch.cat([order[data.labels[order] == label][:5] for label in range(10)])
            model = network(seed, 64, 256, 256, 10)
            few = in_memory(data.rows(chosen), data.labels[chosen])
            settings = Training(epochs=60, batch=50, monitor=0, seed=seed)
            list(train(model, spec, few, settings, unlabelled=in_memory(data.rows(torch.arange(data.size)))))
            errors.append(error(model, x, y))
        yield name, errors


def clusters(seeds: int) -> Iterator[Row]:
    """Accuracy in per cent, clusters named in the best way."""
    x, y = load_digits(return_X_y=True)
    data, truth = in_memory(torch.tensor(x / 16).float()), torch.tensor(y)
    accuracies = []
    for seed in range(seeds):
        model = network(seed, 64, 400, 400, 10, normed=True)
        nn.init.normal_(list(model.parameters())[-2], std=1e-4)
        list(train(model, IMSAT(), data, Training(epochs=60, batch=250, rate=0.002, monitor=0, seed=seed)))
        with torch.no_grad():
            accuracies.append(100 * matched(model(data.rows(torch.arange(data.size))).argmax(1), truth) / data.size)
    yield "imsat", accuracies


STUDIES: dict[str, Callable[[int], Iterator[Row]]] = {"toys": toys, "digits": digits, "labels": labels, "clusters": clusters}


def main() -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=STUDIES, action="append")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draw", type=Path, help="draw the boundaries of two circles into this file, and do nothing else")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.draw:
        drawn(options.draw)
        return
    for name in options.only or STUDIES:
        print(f"{name}: {STUDIES[name].__doc__}", flush=True)
        for row, figures in STUDIES[name](options.seeds):
            spread = f" +- {statistics.stdev(figures):.1f}" if len(figures) > 1 else ""
            print(f"  {row:36} {statistics.mean(figures):5.1f}{spread}", flush=True)


if __name__ == "__main__":
    main()
