"""Orders for runners: a small trained model on scikit-learn's digits, uploads on disk, and a runner to serve them."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from sparring.contract.jobs import JOB
from sparring.contract.report import Report
from sparring.contract.resources import DatasetInfo, ModelInfo
from sparring.contract.runner import MESSAGE, Done, Failed, Message, Order, Told
from sparring.contract.specs import DataSpec, ModelFormat, ModelSpec
from sparring.defenses.fit import fit
from sparring.workers.spare import Runner, Stable
from sparring.workers.wire import Lines, send


def digits() -> tuple[np.ndarray, np.ndarray]:
    """(1797, 1, 8, 8) uint8 and labels; every fifth row is for testing."""
    images, labels = load_digits(return_X_y=True)
    return np.rint(images * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8), labels.astype(np.int64)


def trained(model: nn.Module, epochs: int = 6, scale: float = 1 / 255) -> nn.Module:
    x, y = digits()
    torch.manual_seed(0)
    for layer in model.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    list(fit(model, torch.from_numpy(x).float() * scale, torch.from_numpy(y), epochs=epochs))
    return model.eval()


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 10),
    )


def export(model: nn.Module, path: Path, row: tuple[int, ...] = (1, 8, 8)) -> Path:
    dynamic = ({0: torch.export.Dim("batch", min=1, max=4096)},)
    program = torch.export.export(model, (torch.zeros(2, *row),), dynamic_shapes=dynamic, strict=False)
    torch.export.save(program, path)
    return path


def uploaded(folder: Path, rows: int) -> Path:
    """The folder with model.pt2 and data.npz: so many rows of digits, uint8."""
    export(trained(network()), folder / "model.pt2")
    x, y = digits()
    np.savez(folder / "data.npz", x=x[:rows], y=y[:rows])
    return folder


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def order(
    folder: Path, model: Path, data: Path, job: dict[str, Any], spec: ModelSpec | None = None, meaning: DataSpec | None = None
) -> Order:
    """An order on files; `job` without its model and data."""
    now = datetime.now(UTC)
    format: ModelFormat = "onnx" if model.suffix == ".onnx" else "pt2"
    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    (folder / "cache").mkdir(exist_ok=True)
    return Order(
        job=JOB.validate_python({"kind": "evaluate", "model": "0" * 64, "data": "1" * 64} | job),
        model=ModelInfo(id="mdl_" + "a" * 20, name="m", sha256=sha256(model), size=1, format=format, spec=spec or ModelSpec(), created=now),
        model_path=str(model),
        data=DatasetInfo(
            id="dat_" + "a" * 20, name="d", sha256=sha256(data), size=1, format="npz", spec=meaning or DataSpec(), created=now
        ),
        data_path=str(data),
        cache=str(folder / "cache"),
        out=str(out),
    )


@contextmanager
def running(processes: int = 2) -> Iterator[Runner]:
    runner = Stable("cpu", processes).ready()
    try:
        yield runner
    finally:
        runner.kill()


def talk(runner: Runner, given: Order) -> Iterator[Message]:
    """Send the order; yield what the runner says until it ends."""
    send(runner.wire, given)
    lines = Lines(runner.wire)
    while not lines.ended:
        for line in lines.read(60):
            yield MESSAGE.validate_json(line)


def serve(given: Order, processes: int = 2) -> Done | Failed:
    with running(processes) as runner:
        *_, last = (said for said in talk(runner, given) if not isinstance(said, Told))
        return last


def report(given: Order) -> Report:
    return Report.model_validate_json((Path(given.out) / "report.json").read_bytes())


def gone(pid: int) -> bool:
    """The process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
