"""What the checks of trust say of models that hide their gradients, and of honest ones: `make trust` writes it into docs/trust.md.

Every model is a small network on 8 by 8 digits, exported, loaded and evaluated as an upload would be.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from page import line, table, write
from sklearn.datasets import load_digits
from torch import Tensor, nn

from sparring.contract.defenses import VAT, AnyDefense, Noise, PGDTraining, Training
from sparring.contract.jobs import Evaluate
from sparring.contract.report import Check, Report
from sparring.contract.resources import DatasetInfo, ModelInfo
from sparring.contract.runner import Order
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.defenses.data import in_memory
from sparring.defenses.fit import fit
from sparring.defenses.training import train
from sparring.workers import assemble, shard
from sparring.workers.assemble import Read, Results, Run
from sparring.workers.course import attack_shard
from sparring.workers.preflight import preflight
from sparring.workers.trust import unit

EPS = 0.1
"""In linf, for digits in [0, 1]."""
TILE = 64
MARKS = "figures"
"""What the place of the tables in the page is called."""
Job = dict[str, Any]
STANDARD: Job = {"suite": "standard"}
QUICK: Job = {"suite": "quick"}
LISTED: Job = {"attacks": [{"kind": "pgd", "steps": 40}, {"kind": "square", "queries": 1000}]}


def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(1797, 1, 8, 8) uint8, and labels. Every fifth row is for testing."""
    images, labels = load_digits(return_X_y=True)
    return np.rint(images * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8), labels.astype(np.int64)


def parted(*, testing: bool) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The rows for testing, or those for training."""
    x, y = digits()
    part = (np.arange(len(x)) % 5 == 0) == testing
    return x[part], y[part]


def trained(model: nn.Module, defense: AnyDefense | None = None, epochs: int = 12) -> nn.Module:
    """The model, trained on digits with or without a defense."""
    x, y = parted(testing=False)
    rows, labels = torch.from_numpy(x).float() / 255, torch.from_numpy(y)
    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.BatchNorm2d)):
            layer.reset_parameters()
    if defense is None:
        list(fit(model, rows, labels, epochs=epochs))
    else:
        list(train(model, defense, in_memory(rows, labels, (0.0, 1.0)), Training(epochs=epochs, batch=64, monitor=0)))
    return model.eval()


def mlp(*widths: int, act: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers with something between them."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), act()]
    return nn.Sequential(*layers[:-1])


def cnn(
    *, normed: bool = False, dropped: bool = False, act: Callable[[], nn.Module] = nn.ReLU, pool: type[nn.Module] = nn.MaxPool2d
) -> nn.Module:
    """Two convolutions and a linear layer."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 8), (8, 16)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), *([nn.BatchNorm2d(outputs)] if normed else []), act()]
    return nn.Sequential(*layers, pool(2), nn.Flatten(), *([nn.Dropout(0.3)] if dropped else []), nn.Linear(256, 10))


class Before(nn.Module):
    """A model behind something done to its input."""

    def __init__(self, body: nn.Module) -> None:
        """Hide `body`."""
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, K) of x (B, …)."""
        scores: Tensor = self.body(self.changed(x))
        return scores

    def changed(self, x: Tensor) -> Tensor:
        """What is done to x (B, …)."""
        return x


class Quantised(Before):
    """Rounds its input to seventeen levels (Xu et al. 2017, 1704.01155), which passes no gradient back."""

    def changed(self, x: Tensor) -> Tensor:
        """Rounded."""
        return torch.round(x * 16) / 16


class Random(Before):
    """Adds noise to its input whenever it is asked (Athalye et al. 2018, 1802.00420: stochastic gradients)."""

    def changed(self, x: Tensor) -> Tensor:
        """Noisy."""
        return x + 0.1 * torch.randn_like(x)


class Shattered(Before):
    """Adds a wave so short that its slope hides that of the input (Athalye et al. 2018: shattered gradients)."""

    def changed(self, x: Tensor) -> Tensor:
        """Wavy."""
        return x + 0.03 * torch.sin(400 * x)


class Louder(nn.Module):
    """Scores many times as large as they need be."""

    def __init__(self, body: nn.Module, size: float) -> None:
        """Multiply what `body` says by `size`."""
        super().__init__()
        self.body, self.size = body, size

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, K) of x (B, …)."""
        scores: Tensor = self.body(x) * self.size
        return scores


class Winners(nn.Module):
    """Lets only the largest few of a layer through (Xiao et al. 2019, 1905.10510: k-winners take all)."""

    def __init__(self, share: float = 0.1) -> None:
        """Keep this share of the units."""
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """(B, N) -> (B, N)."""
        least = x.topk(max(1, round(self.share * x.shape[1])), dim=1).values[:, -1:]
        return torch.where(x >= least, x, 0.0)


def distilled(temperature: float = 300.0) -> nn.Module:
    """Defensive distillation (Papernot et al. 2015, 1511.04508): trained on soft labels at a temperature, used without it."""
    x, y = parted(testing=False)
    rows, labels = torch.from_numpy(x).float() / 255, torch.from_numpy(y)

    def learnt(targets: Tensor) -> nn.Module:
        torch.manual_seed(0)
        model = mlp(64, 64, 10)
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        for _ in range(10):
            for batch in torch.split(torch.randperm(len(rows)), 64):
                # the network gives the scores over the temperature, so that its softmax is that at the temperature
                loss = nn.functional.cross_entropy(model(rows[batch]), targets[batch])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
        return model.eval()

    teacher = learnt(nn.functional.one_hot(labels, 10).float())
    with torch.no_grad():
        soft = teacher(rows).softmax(1)
    return Louder(learnt(soft), temperature).eval()


MASKED: dict[str, tuple[Callable[[], nn.Module], Job]] = {
    "defensive distillation": (distilled, QUICK),
    "quantised input": (lambda: Quantised(trained(mlp(64, 64, 10))), QUICK),
    "random layer": (lambda: Random(trained(mlp(64, 64, 10))), QUICK),
    "large scores": (lambda: Louder(trained(mlp(64, 64, 10)), 1000.0), QUICK),
    "softmax output": (lambda: nn.Sequential(trained(mlp(64, 64, 10)), nn.Softmax(1)), QUICK),
    "shattered gradient": (lambda: trained(Shattered(mlp(64, 128, 10)), epochs=25), LISTED),
    "k winners take all": (lambda: trained(mlp(64, 512, 512, 10, act=Winners), epochs=12), LISTED),
}
"""Models that are known to look better than they are, and the evaluation a user would run."""

HONEST: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: trained(mlp(64, 10)),
    "MLP": lambda: trained(mlp(64, 64, 10)),
    "wide MLP": lambda: trained(mlp(64, 512, 10)),
    "narrow MLP": lambda: trained(mlp(64, 12, 10), epochs=40),
    "tanh MLP, noise": lambda: trained(mlp(64, 64, 10, act=nn.Tanh), Noise(), epochs=15),
    "MLP, VAT": lambda: trained(mlp(64, 64, 10), VAT(eps=1.0), epochs=15),
    "MLP, PGD training": lambda: trained(mlp(64, 128, 10), PGDTraining(eps=EPS, steps=5), epochs=20),
    "CNN, batch norm": lambda: trained(cnn(normed=True), epochs=6),
    "CNN, dropout": lambda: trained(cnn(dropped=True), epochs=8),
    "CNN, average pool, PGD training": lambda: trained(cnn(pool=nn.AvgPool2d), PGDTraining(eps=EPS, steps=5), epochs=8),
}
"""Models with nothing to hide."""


def evaluated(folder: Path, model: nn.Module, job: Job, rows: int | None = None) -> Report:
    """The report of an evaluation of `model` as an upload, on the test rows, all in this process."""
    x, y = parted(testing=True)
    np.savez(folder / "data.npz", x=x[:rows], y=y[:rows])
    dynamic = ({0: torch.export.Dim("batch", min=1, max=4096)},)
    torch.export.save(torch.export.export(model, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=dynamic, strict=False), folder / "model.pt2")
    order, began = _order(folder, {"threats": [{"norm": "linf", "eps": EPS}], **job}), time.monotonic()
    assert isinstance(order.job, Evaluate)
    facts, bench = preflight(order, torch.device("cpu"), TILE)
    bench.seal = bench.fingerprint()
    done = attack_shard(order.job, bench, np.arange(facts.rows), lambda more: None)
    shard.save(folder / "0.npz", done._replace(intact=bench.fingerprint() == bench.seal), "study")
    results, paths = Results([folder / "0.npz"], Read("study")), []
    for given in unit.units(order.job, facts, results.rows, results.clean == results.labels, results.ended):
        paths.append(folder / unit.name(given))
        unit.save(paths[-1], "study", unit.look(order.job, bench, given))
    run = Run(order, facts, TILE, 1, 0, datetime.now(UTC), began, seen=unit.gather(paths, "study"))
    return assemble.compose(run, results, {})


def _order(folder: Path, job: Job) -> Order:
    now = datetime.now(UTC)
    digest = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("model.pt2", "data.npz")}
    (folder / "cache").mkdir(exist_ok=True)
    model = ModelInfo(id="mdl_" + "a" * 20, name="m", sha256=digest["model.pt2"], size=1, format="pt2", spec=ModelSpec(), created=now)
    data = DatasetInfo(id="dat_" + "a" * 20, name="d", sha256=digest["data.npz"], size=1, format="npz", spec=DataSpec(), created=now)
    return Order(
        job=Evaluate.model_validate({"model": model.sha256, "data": data.sha256, **job}),
        model=model,
        model_path=str(folder / "model.pt2"),
        data=data,
        data_path=str(folder / "data.npz"),
        cache=str(folder / "cache"),
        out=str(folder),
    )


HEAD = ("Model", "Attacks", "Clean %", "Robust %", "Trust", "Flags, with their evidence", "Left out", "Checks / attacks, seconds")


def cells(name: str, report: Report) -> tuple[str, ...]:
    """One model as a line of the table."""
    (result,) = report.threats
    flags = "; ".join(map(_told, (check for check in result.trust.checks if check.state == "flagged")))
    share = report.cost.check_seconds / report.cost.attack_seconds if report.cost.attack_seconds else 0.0
    how = report.provenance.suite or "PGD 40, Square 1000"
    rates = f"{100 * report.clean.rate:.1f}", f"{100 * result.worst.rate:.1f}"
    return name, how, *rates, result.trust.level, flags or "–", ", ".join(result.trust.left_out) or "–", f"{100 * share:.0f} %"


def _told(check: Check) -> str:
    figures = ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in check.evidence.items())
    return f"`{check.code}` ({figures})" if figures else f"`{check.code}`"


def main() -> None:
    """Evaluate every model, and write the tables into the page that is named, or print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, nargs="?", help="a page with a place for the tables")
    parser.add_argument("--rows", type=int, help="test rows of each model; all 360 unless given")
    parser.add_argument("--only", action="append", choices=[*MASKED, *HONEST], help="these models")
    options = parser.parse_args()
    torch.set_num_threads(1)
    jobs = [(name, make, job) for name, (make, job) in MASKED.items()] + [(name, make, STANDARD) for name, make in HONEST.items()]
    found = {}
    for name, make, job in (each for each in jobs if each[0] in (options.only or (*MASKED, *HONEST))):
        with tempfile.TemporaryDirectory() as folder:
            found[name] = evaluated(Path(folder), make(), job, options.rows)
        print(line(cells(name, found[name])), flush=True)
    masked, honest = (table(HEAD, [cells(name, found[name]) for name in own if name in found]) for own in (MASKED, HONEST))
    text = f"Models that hide their gradients:\n\n{masked}\nHonest models:\n\n{honest}"
    if options.page:
        write(options.page, MARKS, text)


if __name__ == "__main__":
    main()
