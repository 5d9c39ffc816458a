"""Circles and moons: 8 rows of each class, in two dimensions that a fixed random map puts into a hundred."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from digits import error, network
from matplotlib.figure import Figure
from page import Measured
from torch import Tensor, nn

from sparring.contract.defenses import AnyDefense, Training
from sparring.defenses.data import in_memory
from sparring.defenses.training import train
from sparring.parsing import defense

INNER, NOISE = 0.35, 0.05
"""Radius of the inner circle, and standard deviation of what is added to points of the toys."""
POINTS = 9
"""Seed of the points that networks learn from alike: a draw from which plain training errs about as often as in the reference."""
Draw = Callable[[int, int], tuple[Tensor, Tensor]]
"""How many points, and a seed -> points (N, 2) and classes."""


def circles(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points (N, 2) anywhere on two circles about the origin, with a little noise, and which circle."""
    source = torch.Generator().manual_seed(seed)
    y = torch.arange(rows) % 2
    angle = 2 * torch.pi * torch.rand(rows, generator=source)
    points = torch.stack((angle.cos(), angle.sin()), 1) * torch.where(y == 0, 1.0, INNER)[:, None]
    return points + NOISE * torch.randn(rows, 2, generator=source), y


def moons(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points (N, 2) anywhere on two half circles that reach into each other, with a little noise, and which half circle."""
    source = torch.Generator().manual_seed(seed)
    y = torch.arange(rows) % 2
    angle = torch.pi * torch.rand(rows, generator=source)
    turned = torch.stack((1 - angle.cos(), 0.5 - angle.sin()), 1)
    points = torch.where(y[:, None] == 0, torch.stack((angle.cos(), angle.sin()), 1), turned)
    return points + NOISE * torch.randn(rows, 2, generator=source), y


def lifted(points: Tensor) -> Tensor:
    """Points (N, 2) in a hundred dimensions (N, 100), by a random map of rank 2 that is always the same."""
    plane: Tensor = torch.linalg.qr(torch.randn(100, 2, generator=torch.Generator().manual_seed(0)))[0]
    return points @ plane.T


def taught(spec: AnyDefense, draw: Draw, seed: int, points: int = POINTS) -> nn.Module:
    """A network of one hidden layer that has learnt from 8 points of each class."""
    few, labels = draw(16, points)
    model = network(seed, 100, 100, 2)
    settings = Training(epochs=1000, batch=16, optimizer="sgd", rate=0.1, monitor=0, seed=seed)
    list(train(model, spec, in_memory(lifted(few), labels, None), settings))
    return model


ROWS: dict[str, tuple[Draw, dict[str, str]]] = {
    "circles": (
        circles,
        {
            "plain": "10.8 ± 1.5",
            "weight_penalty:l2=1e-4": "10.9 ± 1.5",
            "dropout:p=0.75": "4.9 ± 1.3",
            "lds:eps=1.7": "5.8 ± 0.4",
            "fgsm:norm=l2,eps=0.3,guard=0": "2.2 ± 2.2",
            "vat": "",
            "vat:eps=0.3": "1.6 ± 1.3",
        },
    ),
    "moons": (
        moons,
        {
            "plain": "8.9 ± 2.2",
            "weight_penalty:l2=1e-4": "9.0 ± 2.2",
            "dropout:p=0.4": "10.3 ± 1.2",
            "lds:eps=1.4": "3.9 ± 0.3",
            "fgsm:norm=l2,eps=0.15,guard=0": "4.4 ± 0.1",
            "vat": "",
            "vat:eps=0.45": "4.6 ± 0.2",
        },
    ),
}
"""Defenses, and the error of each in the reference."""


def toy(name: str, seeds: int) -> Iterator[Measured]:
    """Test error in per cent: of networks that learn from the same points, and where each learns from others."""
    draw, known = ROWS[name]
    x, y = draw(1000, 10_000)
    for text, reference in known.items():
        same, other = (
            [error(taught(defense(text), draw, seed, points), lifted(x), y) for seed, points in pairs]
            for pairs in (((seed, POINTS) for seed in range(seeds)), ((seed, seed) for seed in range(seeds)))
        )
        yield Measured(text, (same, other), (reference, ""))


def drawn(path: Path) -> None:
    """Draw where networks decide that have learnt from 8 points of each of two circles, without VAT and with it."""
    side = torch.linspace(-1.6, 1.6, 200)
    grid = torch.cartesian_prod(side, side)
    few, labels = (part.numpy() for part in circles(16, POINTS))
    x, y = circles(1000, 10_000)
    page = Figure(figsize=(8, 4.4), layout="constrained")
    for axes, text in zip(page.subplots(1, 2), ("plain", "vat:eps=0.3"), strict=True):
        spec = defense(text)
        model = taught(spec, circles, 0)
        with torch.no_grad():
            sure = model(lifted(grid)).softmax(1)[:, 1].reshape(200, 200).T.numpy()
        axes.contourf(side.numpy(), side.numpy(), sure, levels=[0, 0.1, 0.3, 0.5, 0.7, 0.9, 1], cmap="RdBu", alpha=0.6)
        axes.contour(side.numpy(), side.numpy(), sure, levels=[0.5], colors="black", linewidths=1)
        axes.scatter(*x.T.numpy(), c=y.numpy(), cmap="RdBu", s=2, alpha=0.5, linewidths=0)
        axes.scatter(*few.T, c=labels, cmap="RdBu", edgecolors="black", zorder=3)
        axes.set(title=f"{spec.title}: {error(model, lifted(x), y):.1f} % wrong", aspect="equal", xticks=[], yticks=[])
    page.savefig(path, dpi=100)
