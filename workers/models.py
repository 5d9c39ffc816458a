"""An uploaded model as a torch module: whatever its format, loaded as data, in evaluation mode, on the CPU, and tried once."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

import torch

from sparring.contract.attacks import Access
from sparring.contract.report import Finding
from sparring.contract.specs import Arch, ModelFormat, ModelSpec
from sparring.workers import weights, zoo
from sparring.workers.errors import Refused
from sparring.workers.pt2.load import load_pt2
from sparring.workers.pt2.mode import set_mode
from sparring.workers.pt2.shapes import BUDGET

if TYPE_CHECKING:
    from sparring.workers.onnx_file import Graph

__all__ = ["Loaded", "check_classes", "load_model", "set_mode"]

BATCHES = (1, 2, 5)
"""Numbers of rows on which a model is tried."""
LOGITS = "A classifier returns one tensor of logits of shape (rows, classes), with two classes or more."


class Loaded(NamedTuple):
    """A model ready to be asked."""

    module: torch.nn.Module
    """In evaluation mode, on the CPU, in the dtype it was uploaded in; set_mode switches it."""
    input_shape: tuple[int, ...] | None
    """Shape of one row, without the batch; None if the model does not fix it."""
    parameters: int
    """Numbers in its parameters; tied ones count once."""
    findings: tuple[Finding, ...]
    """What a reader of the report must know, such as `nan_weights`."""
    dtype: torch.dtype
    """Of the input it takes."""
    classes: int
    """Columns of its output; 0 if only real rows can tell."""
    judge: str = "the uploaded model in its own precision"
    """What `module` is, in words."""
    search: torch.nn.Module | None = None
    """What slopes are taken on, where `module` itself has none to give."""
    access: Access = "gradient"
    """What may be asked of it."""
    graph: "Graph | None" = None
    """An ONNX graph: how it is best run is still to be settled, on real rows."""


def load_model(path: Path, format: ModelFormat, spec: ModelSpec) -> Loaded:
    """Load and try an uploaded model. Nothing in the file is executed.

    Raises Refused: bad_model or unsupported, with a finer code in `detail` (malformed, unsafe_format, unsupported_op,
    shape_mismatch, static_batch, stateful, tensor_too_large, arch_missing, arch_refused …).
    """
    if format not in ("pt2", "onnx"):
        return _bare(path, format, spec)
    if spec.arch is not None:
        hint = f"Leave arch out: an .{format} file holds its own graph."
        raise Refused("bad_model", f"architecture {spec.arch!r} was given for a graph", hint=hint, detail="arch_refused")
    return _onnx(path, spec) if format == "onnx" else _graph(path, spec)


def _onnx(path: Path, spec: ModelSpec) -> Loaded:
    try:  # here, because only the process that asks a session may start it, and the packages are an extra
        from sparring.workers.onnx_file import read_onnx
        from sparring.workers.onnx_judge import VERSION, Judge, bounded
    except ModuleNotFoundError as error:
        hint = "Install sparring[onnx] on the worker, or export the model as .pt2 with `sparring export`."
        raise Refused("unsupported", f"this worker reads no ONNX: {error.name} is not installed", hint=hint, detail="format") from error
    with bounded(BUDGET + 8 * path.stat().st_size):
        graph = read_onnx(path)
        judge = Judge(graph.data, graph.source, graph.target, graph.batch)
        name = f"onnxruntime {VERSION} on the uploaded file"
        classes = _classes(judge, graph.row, graph.dtype, spec) if graph.row else 0
    return Loaded(judge, graph.row, graph.parameters, graph.findings, graph.dtype, classes, name, access="score", graph=graph)


def _graph(path: Path, spec: ModelSpec) -> Loaded:
    read = load_pt2(path)
    row = read.row if read.fixed else None
    return _tried(read.module, row, read.row, read.dtype, spec, read.findings)


def _bare(path: Path, format: ModelFormat, spec: ModelSpec) -> Loaded:
    if spec.arch is None:
        known = ", ".join(get_args(Arch))
        hint = f"Name the architecture (arch: {known}), or export the model as a graph with `sparring export`."
        raise Refused("bad_model", "the file holds weights but not what to do with them", hint=hint, detail="arch_missing")
    state = weights.read_safetensors(path) if format == "safetensors" else weights.read_state_dict(path)
    built = zoo.build(spec.arch, state)
    dtype = next(iter(built.module.parameters())).dtype
    return _tried(built.module.eval(), built.input_shape, built.example, dtype, spec, ())


def _tried(
    module: torch.nn.Module,
    row: tuple[int, ...] | None,
    example: tuple[int, ...],
    dtype: torch.dtype,
    spec: ModelSpec,
    findings: tuple[Finding, ...],
) -> Loaded:
    """Ask the model for a few rows of zeros; what it answers must be logits."""
    classes = _classes(module, example, dtype, spec)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Loaded(module, row, parameters, (*findings, *_nonfinite(module)), dtype, classes)


def check_classes(classes: int, spec: ModelSpec) -> None:
    """Raises Refused where the model answers another number of classes than was declared."""
    if spec.classes is not None and spec.classes != classes:
        hint = "Correct the number of classes, or leave it out."
        raise Refused("bad_model", f"the model has {classes} classes, not {spec.classes} as declared", hint=hint, detail="shape_mismatch")


def _classes(module: torch.nn.Module, row: tuple[int, ...], dtype: torch.dtype, spec: ModelSpec) -> int:
    classes = set()
    for batch in BATCHES:
        with torch.no_grad():
            try:
                logits = module(torch.zeros((batch, *row), dtype=dtype))
            except (Refused, MemoryError):
                raise
            except Exception as error:  # what a model raises on zeros has no common class
                reason = str(error).strip().split("\n")[0][:300]
                message = f"the model fails on {batch} rows of zeros of shape {row}: {type(error).__name__}: {reason}"
                hint = "Run it on batches of 1, 2 and 5 rows before uploading it."
                raise Refused("bad_model", message, hint=hint, detail="graph_error") from error
        if not isinstance(logits, torch.Tensor) or not logits.is_floating_point():
            raise Refused("bad_model", "the model's output is no tensor of real numbers", hint=LOGITS, detail="shape_mismatch")
        if logits.ndim != 2 or logits.shape[0] != batch or logits.shape[1] < 2:
            message = f"the model answers {batch} rows with a tensor of shape {tuple(logits.shape)}"
            raise Refused("bad_model", message, hint=LOGITS, detail="shape_mismatch")
        classes.add(logits.shape[1])
    if len(classes) > 1:
        raise Refused("bad_model", "the number of classes changes with the batch", hint=LOGITS, detail="shape_mismatch")
    (found,) = classes
    check_classes(found, spec)
    return found


def _nonfinite(module: torch.nn.Module) -> list[Finding]:
    """`nan_weights`, if there are any."""
    bad = [name for name, tensor in module.state_dict().items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if not bad:
        return []
    message = f"{len(bad)} tensors of the model hold NaN or infinity, first {bad[0]}"
    hint = "The training has diverged; attacks prove nothing."
    return [Finding(code="nan_weights", message=message, hint=hint, evidence={"tensors": [*bad[:50]]})]
