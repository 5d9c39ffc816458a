"""The weights of an ONNX graph: which tensors are learnt, a graph in torch that learns them, and the file with others in their place."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from torch import nn

from sparring.contract.specs import ModelSpec
from sparring.workers.datasets import Dataset
from sparring.workers.errors import Refused
from sparring.workers.models import Loaded
from sparring.workers.onnx_file import Graph
from sparring.workers.onnx_search import difference, freed, parted, tolerance
from sparring.workers.prepare import Prepared
from sparring.workers.pt2.mode import MODES, SwitchedGraph

_WEIGHTS = {"Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (1, 2), "MatMul": (0, 1), "PRelu": (1,)}
_NORMS = {"BatchNormalization": (1, 2), "InstanceNormalization": (1, 2), "LayerNormalization": (1, 2), "GroupNormalization": (1, 2)}
_LEARNT = _WEIGHTS | _NORMS
"""Which inputs of an operator are learnt."""
_STATISTICS = {"BatchNormalization": (3, 4)}
"""Which are running statistics: they follow the data in training."""
_THROUGH = frozenset({"Identity", "Transpose", "Reshape", "Unsqueeze", "Squeeze"})
"""Operators behind which a tensor is the same numbers."""
_REAL = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_BATCH_NORM, _TRAINING = "_batch_norm", 6
"""The converter's function for batch norms, and which of its arguments says whether they are in training mode."""


class Held(NamedTuple):
    """Tensors of a graph that training changes, by their names in the file."""

    learnt: frozenset[str]
    statistics: frozenset[str]


def held(proto: ModelProto) -> Held:
    """What training changes: what layers with weights and norms take, biases that are added to a product among them."""
    tensors = {tensor.name for tensor in proto.graph.initializer if tensor.data_type in _REAL and tensor.dims}
    made = {name: node for node in proto.graph.node for name in node.output}
    learnt, statistics = set(), set()
    for node in proto.graph.node:
        learnt |= {_origin(name, made) for name in _inputs(node, _LEARNT.get(node.op_type, ()))}
        statistics |= {_origin(name, made) for name in _inputs(node, _STATISTICS.get(node.op_type, ()))}
        if node.op_type == "Add" and any(made[name].op_type == "MatMul" for name in node.input if name in made):
            learnt |= {_origin(name, made) for name in node.input}
    return Held(frozenset(learnt & tensors), frozenset(statistics & tensors - learnt))


def _inputs(node: NodeProto, places: tuple[int, ...]) -> Iterator[str]:
    return (node.input[at] for at in places if at < len(node.input) and node.input[at])


def _origin(name: str, made: dict[str, NodeProto]) -> str:
    while name in made and made[name].op_type in _THROUGH:
        name = made[name].input[0]
    return name


def trainable_graph(graph: Graph) -> tuple[nn.Module, dict[str, str]]:
    """The graph in torch, in evaluation mode, for any number of rows; and of its state the names in the file.

    Raises whatever the converter raises.
    """
    proto = freed(graph) if graph.batch else graph.proto
    module, given = parted(proto, graph)
    changed = held(proto)
    own = {given[name]: name for name in (*changed.learnt, *changed.statistics)}
    made = SwitchedGraph(module, module.graph)
    for name, tensor in list(made.named_buffers()):
        if own.get(name) in changed.learnt:
            delattr(made, name)
            made.register_parameter(name, nn.Parameter(tensor.clone()))
        elif name not in own:
            made._non_persistent_buffers_set.add(name)
    for node in made.graph.nodes:
        if getattr(node.target, "__name__", "") == _BATCH_NORM:
            node.meta[MODES] = (_TRAINING, 1, 0)
    return made.eval(), own


def trainable(loaded: Loaded, data: Dataset, spec: ModelSpec) -> tuple[nn.Module, dict[str, str]]:
    """The graph of a model, if it answers rows of the data as onnxruntime does.

    Raises:
        Refused: it does not, or holds nothing that could be learnt.
    """
    graph = loaded.graph
    assert graph is not None
    hint = "Export the model as .pt2 with `sparring export`."
    try:
        module, names = trainable_graph(graph)
        x = data.rows(torch.arange(64) % len(data))
        with torch.no_grad():
            expected, found = (_fit(loaded, each, spec, data)(x) for each in (loaded.module, module))
        off = difference(found, expected)
    except Exception as error:  # the converter, and what it makes of a graph, raise anything
        message = f"the graph cannot be trained: {type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error) else ''}"
        raise Refused("unsupported", message, hint=hint, detail="training_unsupported") from error
    if off > tolerance(graph.dtype):
        message = f"computed in torch the graph answers differently, by {off:.2g} of the range of its scores, so that it cannot be trained"
        raise Refused("unsupported", message, hint=hint, detail="training_unsupported")
    if not any(True for _ in module.parameters()):
        raise Refused("unsupported", "the graph holds no weights that training could change", hint=hint, detail="training_unsupported")
    return module, names


def _fit(loaded: Loaded, module: nn.Module, spec: ModelSpec, data: Dataset) -> Prepared:
    return Prepared(loaded._replace(module=module), spec, data.row_shape, data.spec.layout).eval()


def replaced(proto: ModelProto, weights: dict[str, torch.Tensor]) -> ModelProto:
    """The graph with other numbers in its tensors; everything else stays as it is."""
    for tensor in proto.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name].numpy(), tensor.name))
    return proto
