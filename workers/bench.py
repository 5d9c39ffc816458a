"""A model and a dataset made ready, in one process: what preflight measures on and shards are attacked on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks.access import Target
from sparring.attacks.search import search_copy
from sparring.contract.report import Finding
from sparring.contract.runner import Order
from sparring.contract.specs import DataSpec
from sparring.workers.datasets import Dataset, open_dataset, unpack
from sparring.workers.errors import Refused
from sparring.workers.models import Loaded, load_model
from sparring.workers.prepare import Prepared


class Facts(NamedTuple):
    """What preflight found out; every process of the runner works from the same facts."""

    rows: int
    """Rows to evaluate, from the first."""
    classes: int
    shape: tuple[int, ...]
    """Of the dataset, rows first."""
    dtype: str
    labelled: bool
    spec: DataSpec
    """With its defaults filled in."""
    parameters: int
    probabilities: bool
    independent: bool
    search: tuple[str, ...]
    device: str
    findings: tuple[Finding, ...]


@dataclass
class Bench:
    """The pieces, on their device."""

    data: Dataset
    loaded: Loaded
    model: Prepared
    target: Target
    search: tuple[str, ...]
    device: torch.device

    def rows(self, index: Tensor) -> Tensor:
        """Rows of the data (B, …) float32, on the device."""
        return self.data.rows(index).to(self.device)


def pick(device: str) -> torch.device:
    """`cpu` or `cuda:N`, with arithmetic in full fp32 and deterministic."""
    if device.startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    return torch.device(device)


def prepared(order: Order, loaded: Loaded, data: Dataset) -> Prepared:
    """The model with its declared first layer."""
    return Prepared(loaded, order.model.spec, data.row_shape, data.spec.layout)


def open_bench(order: Order, device: torch.device, tile: int, facts: Facts | None) -> Bench:
    """Load model and data. Without facts this is preflight's own first look.

    Raises:
        Refused: one of them cannot be used.
    """
    data = open_dataset(unpack(Path(order.data_path), Path(order.cache), order.data.sha256), order.data.spec)
    loaded = load_model(Path(order.model_path), order.model.format, order.model.spec)
    model = prepared(order, loaded, data).eval()
    model.probabilities = bool(facts and facts.probabilities)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.to(device)
    search, done = search_copy(model)
    return Bench(data, loaded, model, Target(model, search, tile), done, device)


def first_pass(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Scores (B, K) of the first rows; what the model itself raises is told as a misfit of model and data.

    Raises:
        Refused: the model cannot run on such rows, or answers something other than finite (B, K) scores.
    """
    try:
        scores = forward(x)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if out_of_memory(error):
            raise
        raise Refused(
            "bad_model",
            f"the model cannot run on rows of shape {list(x.shape[1:])}: {error}".splitlines()[0],
            hint="Check the shape and layout of model and data.",
            detail="shape_mismatch",
        ) from error
    if scores.dim() != 2 or len(scores) != len(x) or scores.shape[1] < 2:
        raise Refused(
            "bad_model",
            f"for {len(x)} rows the model answers shape {list(scores.shape)}; expected [{len(x)}, classes] with at least 2 classes",
            hint="Export the classifier so that it returns one row of logits per input.",
            detail="shape_mismatch",
        )
    if not bool(torch.isfinite(scores).all()):
        row = int(torch.nonzero(~torch.isfinite(scores).all(1))[0])
        raise Refused(
            "bad_model",
            f"the model answers NaN or infinity on clean row {row}",
            hint="Check the weights, and that mean, std and bounds are those of training.",
            detail="non_finite_output",
        )
    return scores


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    return (
        isinstance(error, (MemoryError, torch.OutOfMemoryError))
        or "can't allocate memory" in str(error)
        or "not enough memory" in str(error)
    )
