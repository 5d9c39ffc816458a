"""A model as the judge sees it: what the user declared about its input becomes its first layer, and logits come out."""

import torch
from torch import Tensor, nn

from sparring.contract.specs import Layout, ModelSpec
from sparring.workers.errors import Refused
from sparring.workers.models import Loaded

_TINY = torch.finfo(torch.float32).tiny
PASSES = 11
"""Of a model that draws at random, before it is said what it answers."""


class Prepared(nn.Module):
    """Rows in units and layout of the data in, logits out."""

    traceable = True

    def __init__(self, loaded: Loaded, spec: ModelSpec, rows: tuple[int, ...], layout: Layout | None) -> None:
        """Wrap a loaded model.

        Args:
            loaded: the model, and what its file says of its input.
            spec: mean and std in units of the data, and the layout the model expects.
            rows: shape of one row of the data.
            layout: how the data stores its rows.

        Raises:
            Refused: the rows cannot be what the model reads.
        """
        super().__init__()
        self.model, self.dtype = loaded.module, loaded.dtype
        channel = -1 if layout == "NHWC" else 0
        self.mean = nn.Buffer(_channels(spec.mean, rows, channel, "mean"), persistent=False)
        self.std = nn.Buffer(_channels(spec.std, rows, channel, "std", 1.0), persistent=False)
        self.order, shape = _order(rows, layout or "NCHW", spec.layout or "NCHW")
        self.shape = _shape(shape, loaded.input_shape, rows, spec, layout)
        self.normalised = spec.mean is not None or spec.std is not None
        self.probabilities = False
        """The model answers probabilities; their logarithm serves as logits."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, *rows) float32 -> logits (B, K)."""
        if self.normalised:
            x = (x - self.mean) / self.std
        if self.order:
            x = x.permute(0, *self.order)
        scores: Tensor = self.model(x.reshape(-1, *self.shape).to(self.dtype))
        scores = scores if scores.dtype == torch.float64 else scores.float()
        return scores.clamp_min(_TINY).log() if self.probabilities else scores


class Voting(nn.Module):
    """The word of a model that draws at random: how many of eleven passes call a row by each class.

    What torch draws in them is the same whenever they are asked, so that the judge does not contradict itself.
    """

    def __init__(self, model: nn.Module) -> None:
        """Ask `model`, (B, …) -> scores (B, K)."""
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) float32: the logarithm of one more than the votes. NaN where a pass answers NaN or infinity."""
        votes = torch.zeros((), device=x.device)
        with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
            for seed in range(PASSES):
                torch.manual_seed(seed)
                scores: Tensor = self.model(x)
                vote = nn.functional.one_hot(scores.argmax(1), scores.shape[1]).float()
                votes = votes + torch.where(torch.isfinite(scores).all(1, keepdim=True), vote, torch.nan)
        return (votes + 1).log()


def _channels(values: tuple[float, ...] | None, rows: tuple[int, ...], channel: int, name: str, default: float = 0.0) -> Tensor:
    """One value, or one per channel, shaped to broadcast over one row."""
    values = values or (default,)
    if len(values) == 1:
        return torch.tensor(values[0], dtype=torch.float32)
    size = rows[channel] if rows else 0
    if len(values) != size:
        raise Refused(
            "bad_model",
            f"{name} has {len(values)} values, but a row of the data, shape {list(rows)}, has {size} channels",
            hint="Give one value, or one per channel; check the layout of model and data.",
            detail="shape_mismatch",
        )
    shape = [1] * len(rows)
    shape[channel] = size
    return torch.tensor(values, dtype=torch.float32).reshape(shape)


def _order(rows: tuple[int, ...], have: Layout, want: Layout) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Axes (from 1) to permute a batch to the model's layout, none if they agree; and the row's shape after it."""
    if have == want or len(rows) != 3:
        return (), rows
    order = (3, 1, 2) if want == "NCHW" else (2, 3, 1)
    return order, tuple(rows[axis - 1] for axis in order)


def _shape(
    shape: tuple[int, ...], wanted: tuple[int, ...] | None, rows: tuple[int, ...], spec: ModelSpec, layout: Layout | None
) -> tuple[int, ...]:
    """What rows are reshaped to: axes of length 1 may come and go, and a flat model may read an image."""
    if wanted is None or shape == wanted:
        return shape
    long = tuple(size for size in wanted if size != 1)
    squeezed = tuple(size for size in shape if size != 1) == long
    flattened = len(long) == 1 and torch.Size(shape).numel() == long[0]
    if squeezed or flattened:
        return wanted
    hint = "Upload data of that shape, or the model that fits these data."
    if len(shape) == 3 and (shape[2], *shape[:2]) == wanted:
        hint = "The data look like NHWC: upload them with layout=NHWC."
    elif len(shape) == 3 and (*shape[1:], shape[0]) == wanted:
        hint = "The model looks like NHWC: upload it with layout=NHWC."
    raise Refused(
        "bad_model",
        f"the model reads rows of shape {list(wanted)}, the data have rows of shape {list(rows)} "
        f"(data layout {layout or 'NCHW'}, model layout {spec.layout or 'NCHW'})",
        hint=hint,
        detail="shape_mismatch",
    )
