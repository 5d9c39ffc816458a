"""What an epoch of each defense costs: CPU seconds as multiples of a plain epoch, beside a straightforward loop and ART's trainer.

`python -P benchmarks/training.py --rows 2000 --rounds 3`. All of it runs in one process with one thread, every contestant once in each
round, on the same small network and the same rows; each figure is `median [min, max]` over the rounds. The rows are noise: speed alone
is measured. ART takes part where it is installed.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparring.contract.defenses import (
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
    Noise,
    PGDTraining,
    Plain,
    Training,
    WeightPenalty,
)
from sparring.defenses.data import in_memory
from sparring.defenses.training import train

EPS, ALPHA, STEPS, BATCH = 0.1, 0.025, 7, 128
SPECS: tuple[AnyDefense, ...] = (
    *(Plain(), Noise(), Dropout(), WeightPenalty(), GradientPenalty(), LDS(), VAT()),
    *(FGSMTraining(eps=EPS), FastTraining(eps=EPS), FreeTraining(eps=EPS), YOPO(eps=EPS), FreeLB(eps=EPS, norm="linf")),
    *(PGDTraining(eps=EPS), PGDTraining(eps=EPS, inner="folded"), TRADES(eps=EPS), MART(eps=EPS)),
)


def network() -> nn.Module:
    """A small network for pictures of 28 by 28, with batch norm."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10)),
    )


def ours(spec: AnyDefense, x: Tensor, y: Tensor) -> None:
    """As many epochs as one pass over the rows costs in this defense's own counting."""
    epochs = spec.replays if isinstance(spec, FreeTraining) else 1
    list(train(network(), spec, in_memory(x, y), Training(epochs=epochs, batch=BATCH, monitor=0)))


def by_hand(steps: int, x: Tensor, y: Tensor) -> None:
    """The loop one writes first: rows are moved by `.backward()` in evaluation mode, then learnt from; no steps are plain training."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    order = torch.randperm(len(x))
    for index in torch.split(order, BATCH):
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


def by_art(x: Tensor, y: Tensor) -> None:
    """The Adversarial Robustness Toolbox's own trainer."""
    from art.defences.trainer import AdversarialTrainerMadryPGD
    from art.estimators.classification import PyTorchClassifier

    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    classifier = PyTorchClassifier(model, nn.CrossEntropyLoss(), (1, 28, 28), 10, optimizer, clip_values=(0.0, 1.0), device_type="cpu")
    trainer = AdversarialTrainerMadryPGD(
        classifier, nb_epochs=1, batch_size=BATCH, eps=EPS, eps_step=ALPHA, max_iter=STEPS, num_random_init=1
    )
    trainer.fit(x.numpy(), functional.one_hot(y, 10).float().numpy())


def contestants() -> Iterator[tuple[str, Callable[[Tensor, Tensor], None]]]:
    """Each by its name; the plain loop first, which all are multiples of."""
    yield "plain, by hand", partial(by_hand, 0)
    yield f"PGD-{STEPS}, by hand", partial(by_hand, STEPS)
    if importlib.util.find_spec("art"):
        yield f"PGD-{STEPS}, ART", by_art
    else:
        print("!!! SKIPPED: ART is not installed here", flush=True)
    for spec in SPECS:
        name = f"{spec.kind}, folded" if getattr(spec, "inner", "") == "folded" else spec.kind
        yield f"{name} ({spec.gradients} gradients)", partial(ours, spec)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    source = torch.Generator().manual_seed(0)
    x, y = torch.rand(given.rows, 1, 28, 28, generator=source), torch.randint(0, 10, (given.rows,), generator=source)
    running = list(contestants())
    for _, run in running:  # what is imported and allocated once is nobody's cost
        run(x[:BATCH], y[:BATCH])
    spent: dict[str, list[float]] = {name: [] for name, _ in running}
    for _ in range(given.rounds):
        for name, run in running:
            began = time.process_time()
            run(x, y)
            spent[name].append(time.process_time() - began)
    plain = spent[running[0][0]]
    print("| epoch of | CPU seconds as multiples of the plain loop |\n|---|---|")
    for name, seconds in spent.items():
        ratios = [own / base for own, base in zip(seconds, plain, strict=True)]
        print(f"| {name} | {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] |", flush=True)


if __name__ == "__main__":
    main()
