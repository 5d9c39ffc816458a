"""What slopes of an ONNX model are taken on: its graph as torch operators, used only where it answers as onnxruntime does."""

import itertools
import math
from collections.abc import Callable

import torch
from onnx import ModelProto
from onnx2fx import UnsupportedOpError, convert, make_trainable
from torch import Tensor

from sparring.contract.report import Finding
from sparring.workers.errors import without_folders
from sparring.workers.models import Loaded
from sparring.workers.onnx_file import Graph
from sparring.workers.onnx_judge import Judge, in_parts

TOLERANCE = 1e-4
"""Largest difference allowed between two ways to compute the same scores, relative to the range of all scores compared."""

Fit = Callable[[torch.nn.Module], torch.nn.Module]
"""Wraps a module so that it reads rows of the data."""


class InParts(torch.nn.Module):
    """A graph fixed to one batch size, asked for any number of rows."""

    def __init__(self, graph: torch.nn.Module, batch: int) -> None:
        """Ask `graph` for `batch` rows at a time."""
        super().__init__()
        self.graph, self.batch = graph, batch

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, K) of x (B, …)."""
        return in_parts(self.graph, x, self.batch)


def settle(loaded: Loaded, x: Tensor, scores: Tensor, fit: Fit) -> Loaded:
    """Find the fastest way to run a graph that answers real rows as the uploaded file does, and one that has a gradient.

    A graph exported for one batch size runs in whole tiles if that changes no row, else in passes of its own size.

    Args:
        loaded: the uploaded file as it is, with its graph.
        x: real rows of the data, one tile of them.
        scores: what the judge answers.
        fit: wraps a module so that it reads such rows.
    """
    graph = loaded.graph
    assert graph is not None
    loaded = loaded._replace(graph=None)
    ways: list[tuple[ModelProto, int | None]] = [(graph.proto, graph.batch)]
    if graph.batch:
        free = freed(graph)
        if loose := _in_tiles(graph, free, x, scores, fit):
            loaded = loaded._replace(module=loose, judge=f"{loaded.judge}, its batch size made free")
            ways.insert(0, (free, None))
        else:
            loaded = loaded._replace(judge=f"{loaded.judge}, in passes of {graph.batch} rows")
    reasons = []
    for proto, batch in ways:
        try:
            search = converted(proto, graph, batch)
            off = _compared(fit(search), x, scores)
        except Exception as error:  # the converter, and what it makes of a graph, raise anything
            reasons.append(_reason(error))
            continue
        if off <= tolerance(graph.dtype):
            return loaded._replace(search=search, access="gradient")
        reasons.append(f"its graph computed in torch answers differently, by {off:.2g} of the range of its scores")
    return loaded._replace(findings=(*loaded.findings, _scores_only(reasons[0])))


def _in_tiles(graph: Graph, free: ModelProto, x: Tensor, scores: Tensor, fit: Fit) -> Judge | None:
    """A judge that takes any number of rows, if it answers each as the graph does in passes of its own size."""
    try:
        loose = Judge(free.SerializeToString(), graph.source, graph.target, None)
        return loose if difference(fit(loose)(x), scores) <= tolerance(graph.dtype) else None
    except Exception:  # whatever keeps it from running in tiles, it runs in passes of its own size
        return None


def tolerance(dtype: torch.dtype) -> float:
    """What may lie between torch and onnxruntime, relative to the range of the scores; half precision knows no better."""
    return max(TOLERANCE, 4 * torch.finfo(dtype).eps)


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference of two tensors of scores, relative to the range of the expected; infinity if they do not compare."""
    if found.shape != expected.shape:
        return float("inf")
    span = float(expected.max() - expected.min())
    off = float((found - expected).abs().max()) / max(span, torch.finfo(torch.float32).tiny)
    return float("inf") if math.isnan(off) else off


def converted(proto: ModelProto, graph: Graph, batch: int | None) -> torch.nn.Module:
    """The graph as a torch module on the CPU. Raises whatever the converter raises."""
    module, _ = parted(proto, graph)
    for parameter in make_trainable(module).parameters():
        parameter.requires_grad_(False)
    module.eval()
    return module if batch is None else InParts(module, batch)


def parted(proto: ModelProto, graph: Graph) -> tuple[torch.fx.GraphModule, dict[str, str]]:
    """The graph up to its scores as torch operators, all its tensors buffers; and what its values are called there."""
    plain, given = _plain(proto, graph.target)
    module = convert(plain)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module, given


def freed(graph: Graph) -> ModelProto:
    """The graph, declared for any number of rows. Whether it can be run on them remains to be seen."""
    proto = ModelProto()
    proto.CopyFrom(graph.proto)
    del proto.graph.value_info[:]
    (source,) = (value for value in proto.graph.input if value.name == graph.source)
    source.type.tensor_type.shape.dim[0].dim_param = "rows"
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    return proto


def _compared(search: torch.nn.Module, x: Tensor, scores: Tensor) -> float:
    """The difference in scores; a slope is asked for as well, which may raise what a slope can."""
    with torch.enable_grad():
        part = x.detach().clone().requires_grad_()
        found = search(part)
        if found.requires_grad:
            torch.autograd.grad(found.sum(), part, allow_unused=True)
    return difference(found.detach(), scores)


def _plain(proto: ModelProto, target: str) -> tuple[ModelProto, dict[str, str]]:
    """The graph up to one output, its values named v0, v1 …: the converter takes two names that differ in a dot for the same.

    Also the new names by the old.
    """
    plain = ModelProto()
    plain.CopyFrom(proto)
    graph = plain.graph
    numbers = itertools.count()
    given: dict[str, str] = {}

    def renamed(name: str) -> str:
        if name and name not in given:
            given[name] = f"v{next(numbers)}"
        return given.get(name, "")

    scores = [value for value in graph.output if value.name == target]
    del graph.value_info[:], graph.output[:], graph.quantization_annotation[:]
    graph.output.extend(scores)
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = renamed(value.name)
    for at, node in enumerate(graph.node):
        node.name = f"n{at}"
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    return plain, given


def _scores_only(reason: str) -> Finding:
    return Finding(
        code="score_access_only",
        message=f"The model is attacked through its scores alone, as onnxruntime computes them: {reason}.",
        hint="Attacks that follow gradients are stronger. Export the model as .pt2 with `sparring export` to have them run.",
        evidence={"reason": reason},
    )


def _reason(error: Exception) -> str:
    if isinstance(error, UnsupportedOpError):
        return f"its operator {error.op_type} has no counterpart in torch"
    said = next(iter(str(error).strip().splitlines()), "")[:200]
    return f"its graph cannot be computed in torch ({type(error).__name__}: {without_folders(said)})"
