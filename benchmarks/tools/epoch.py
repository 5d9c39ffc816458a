"""One epoch of training by one contestant, as a process of its own: `python -m tools.epoch NETWORK CONTESTANT ROWS`; tells its CPU seconds.

A contestant is `by-hand:STEPS` (PGD with so many steps, 0 for plain training), `art:STEPS`, or a defense as JSON. The rows are noise:
speed alone is measured. All of them get one thread.
"""

import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional

from sparring.contract.defenses import AnyDefense, FreeTraining, Training
from sparring.defenses.data import in_memory
from sparring.defenses.training import train
from sparring.workers.zoo import LeNet5, ResNet18

EPS, ALPHA, BATCH = 0.1, 0.025, 128
Epoch = Callable[[nn.Module, Tensor, Tensor], None]


def cnn(*, norm: bool = False) -> nn.Module:
    """The zoo's `cnn`, for pictures of 28 by 28; or one with batch norm."""

    def convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(inputs, outputs, 4, 2, 1), *((nn.BatchNorm2d(outputs),) if norm else ()), nn.ReLU()

    return nn.Sequential(
        *(*convolution(1, 16), *convolution(16, 32), nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10)),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "cnn": (cnn, (1, 28, 28)),
    "small": (partial(cnn, norm=True), (1, 28, 28)),
    "lenet5": (lambda: LeNet5((1, 32, 64), 3136, 200, 10), (1, 28, 28)),
    "resnet18": (lambda: ResNet18(3, 16, 10), (3, 32, 32)),
}


def ours(defense: AnyDefense) -> Epoch:
    """As many epochs as one pass over the rows costs in this defense's own counting."""
    epochs = defense.replays if isinstance(defense, FreeTraining) else 1

    def epoch(model: nn.Module, x: Tensor, y: Tensor) -> None:
        list(train(model, defense, in_memory(x, y), Training(epochs=epochs, batch=BATCH, monitor=0)))

    return epoch


def by_hand(steps: int) -> Epoch:
    """The loop one writes first: rows are moved by `.backward()` in evaluation mode, then learnt from; no steps are plain training."""

    def epoch(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer = torch.optim.Adam(model.parameters())
        for index in torch.split(torch.randperm(len(x)), BATCH):
            rows, labels = x[index], y[index]
            model.eval()
            moved = (rows + torch.empty_like(rows).uniform_(-EPS, EPS)).clamp(0, 1) if steps else rows
            for _ in range(steps):
                moved = moved.detach().requires_grad_()
                torch.autograd.backward(functional.cross_entropy(model(moved), labels))
                assert moved.grad is not None
                moved = (moved + ALPHA * moved.grad.sign()).clamp(rows - EPS, rows + EPS).clamp(0, 1)
            model.train()
            optimizer.zero_grad()
            torch.autograd.backward(functional.cross_entropy(model(moved.detach()), labels))
            optimizer.step()

    return epoch


def by_art(steps: int) -> Epoch:
    """The Adversarial Robustness Toolbox's own trainer."""
    from art.defences.trainer import AdversarialTrainerMadryPGD
    from art.estimators.classification import PyTorchClassifier

    def epoch(model: nn.Module, x: Tensor, y: Tensor) -> None:
        learner, size = torch.optim.Adam(model.parameters()), tuple(x.shape[1:])
        known = PyTorchClassifier(model, nn.CrossEntropyLoss(), size, 10, learner, clip_values=(0.0, 1.0), device_type="cpu")
        trainer = AdversarialTrainerMadryPGD(
            known, nb_epochs=1, batch_size=BATCH, eps=EPS, eps_step=ALPHA, max_iter=steps, num_random_init=1
        )
        trainer.fit(x.numpy(), functional.one_hot(y, 10).float().numpy())

    return epoch


def contestant(name: str) -> Epoch:
    """By its name on the command line."""
    if name.startswith("{"):
        defense: AnyDefense = TypeAdapter(AnyDefense).validate_json(name)
        return ours(defense)
    kind, _, steps = name.partition(":")
    return {"by-hand": by_hand, "art": by_art}[kind](int(steps))


def main(network: str, name: str, rows: int) -> None:
    """Imports and a first batch, in which memory is allocated, are not timed."""
    torch.set_num_threads(1)
    make, shape = NETWORKS[network]
    source = torch.Generator().manual_seed(0)
    x, y = torch.rand(rows, *shape, generator=source), torch.randint(0, 10, (rows,), generator=source)
    epoch = contestant(name)
    for count in (BATCH, rows):
        torch.manual_seed(0)
        model = nn.Sequential(make())  # as whoever loads or wraps a model holds it
        began = time.process_time()
        epoch(model, x[:count], y[:count])
    print(time.process_time() - began)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
