"""An .onnx file, read as data and checked: one input of real numbers, one file, standard operators, no branches or loops."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from sparring.contract.report import Finding
from sparring.workers.errors import Refused, shown

MAX_BYTES = 1 << 30
"""Of the file: it is held several times over while it is read."""
MAX_NODES = 10_000
MAX_BATCH = 1024
"""Largest batch size a graph may be fixed to."""
MAX_ROW = 1 << 26
"""Numbers in one row."""
_STANDARD = ("", "ai.onnx")
_CLASSIC = "ai.onnx.ml"
_TREES = frozenset({"TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"})
_CLASSIC_KNOWN = _TREES | {"Imputer", "LinearClassifier", "Normalizer", "SVMClassifier", "Scaler"}
"""Operators of classical models, as scikit-learn, XGBoost and LightGBM are converted to; onnxruntime computes them."""
_DTYPES: dict[int, torch.dtype] = {TensorProto.FLOAT: torch.float32, TensorProto.FLOAT16: torch.float16, TensorProto.DOUBLE: torch.float64}
_RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})
_EXPORT = "Export it again with torch.onnx.export, as one self-contained file."
_HOLDS_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
_SPARSE = (AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS)


class Graph(NamedTuple):
    """What an .onnx file holds, checked."""

    proto: ModelProto
    data: bytes
    """The file."""
    source: str
    """Name of the input."""
    target: str
    """Name of the output that holds the scores."""
    batch: int | None
    """Rows of every pass; None if the graph takes any number."""
    row: tuple[int, ...] | None
    """Shape of one row; None if the graph does not fix it."""
    dtype: torch.dtype
    """Of the input."""
    parameters: int
    findings: tuple[Finding, ...]


def read_onnx(path: Path) -> Graph:
    """Read and check an .onnx file; nothing is computed and no other file is opened.

    Raises:
        Refused: bad_model or unsupported, with a finer code in `detail` (malformed, unsafe_format, unsupported_op, graph_error,
            shape_mismatch, input_dtype, static_batch, tensor_too_large).
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        message = f"the file has {size} bytes; at most {MAX_BYTES} are read"
        raise Refused("bad_model", message, hint="Upload a smaller model, or a .pt2 file.", detail="tensor_too_large")
    data = path.read_bytes()
    try:
        proto = ModelProto.FromString(data)
    except DecodeError as error:
        hint = f"The file may be cut off. {_EXPORT}"
        raise Refused("bad_model", "the file cannot be read as ONNX", hint=hint, detail="malformed") from error
    _refuse(proto)
    _check(proto)
    source = _input(proto)
    batch, row = _shape(source)
    numbers = [array for array in map(_array, _tensors(proto)) if array is not None]
    findings = (*_nonfinite(numbers), *_drawing(proto))
    parameters = sum(array.size for _, array in numbers)
    dtype = _DTYPES[source.type.tensor_type.elem_type]
    return Graph(proto, data, source.name, _output(proto).name, batch, row, dtype, parameters, findings)


def _refuse(proto: ModelProto) -> None:
    """What is never read: files beside the file, operators of others, nested graphs, sparse tensors."""
    if len(proto.graph.node) > MAX_NODES:
        message = f"the graph has {len(proto.graph.node)} nodes; at most {MAX_NODES} are read"
        raise Refused("bad_model", message, hint="Upload a smaller model.", detail="graph_too_large")
    for tensor in _tensors(proto):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            hint = "Save the model as a single file: onnx.save(onnx.load('model.onnx'), 'single.onnx')."
            message = f"tensor {shown(tensor.name)} keeps its numbers in another file, which is never opened"
            raise Refused("bad_model", message, hint=hint, detail="unsafe_format")
    if proto.functions:
        hint = "Inline them: onnx.save(onnx.inliner.inline_local_functions(onnx.load('model.onnx')), 'inlined.onnx')."
        raise Refused("unsupported", "the file defines functions of its own", hint=hint, detail="unsupported_op")
    for node in proto.graph.node:
        if node.op_type == "ZipMap" and node.domain == _CLASSIC:
            hint = "Convert it so that scores are a tensor: to_onnx(model, x, options={'zipmap': False})."
            raise Refused("unsupported", "the graph answers maps from class to score (ZipMap)", hint=hint, detail="unsupported_op")
        if node.domain not in _STANDARD and not (node.domain == _CLASSIC and node.op_type in _CLASSIC_KNOWN):
            message = f"{_named(node)} is an operator of the domain {shown(node.domain)}"
            raise Refused("unsupported", message, hint="Only the standard operators of ONNX are read.", detail="unsupported_op")
        if any(attribute.type in _HOLDS_GRAPHS or attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            hint = "Export the model for fixed conditions, without If, Loop and Scan, or as .pt2 with `sparring export`."
            raise Refused("unsupported", f"{_named(node)} holds a graph of its own", hint=hint, detail="unsupported_op")
    sparse = any(attribute.type in _SPARSE for node in proto.graph.node for attribute in node.attribute)
    if sparse or proto.graph.sparse_initializer:
        raise Refused("unsupported", "the file holds sparse tensors", hint="Store the weights as dense tensors.", detail="tensor_layout")


def _check(proto: ModelProto) -> None:
    try:
        onnx.checker.check_model(proto, full_check=True)
    except MemoryError:
        raise
    except Exception as error:  # ValidationError, InferenceError, and what pybind makes of C++'s: they share no class
        reason = " ".join(str(error).split("==>")[0].split())[:300]
        raise Refused("bad_model", f"onnx.checker refuses the graph: {reason}", hint=_EXPORT, detail="malformed") from error


def _input(proto: ModelProto) -> ValueInfoProto:
    held = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in held]
    if len(inputs) != 1:
        names = ", ".join(shown(value.name) for value in inputs[:5]) or "none"
        message = f"the graph has {len(inputs)} inputs ({names}); a classifier has one, the batch of rows"
        raise Refused("bad_model", message, hint="Build everything else into the graph as constants.", detail="shape_mismatch")
    kind = inputs[0].type
    if not kind.HasField("tensor_type") or kind.tensor_type.elem_type not in _DTYPES:
        message = f"the input {shown(inputs[0].name)} is {_kind(inputs[0])}"
        hint = "Attacks move real numbers: export a model whose input is a tensor of float, float16 or double."
        raise Refused("unsupported", message, hint=hint, detail="input_dtype")
    source: ValueInfoProto = inputs[0]
    return source


def _shape(source: ValueInfoProto) -> tuple[int | None, tuple[int, ...] | None]:
    """Batch size and shape of a row, where the input fixes them."""
    declared = source.type.tensor_type
    sizes = [dim.dim_value if dim.dim_value > 0 else None for dim in declared.shape.dim]
    if len(sizes) < 2:
        message = f"the input {shown(source.name)} is declared with {len(sizes)} axes"
        raise Refused("bad_model", message, hint="The input must be a tensor of rows: (batch, features …).", detail="shape_mismatch")
    batch, row = sizes[0], tuple(size for size in sizes[1:] if size)
    if batch and batch > MAX_BATCH:
        message = f"the graph was exported for batches of {batch}; at most {MAX_BATCH} are run"
        hint = "Export it with a dynamic batch: torch.onnx.export(…, dynamic_axes={'input': {0: 'batch'}})."
        raise Refused("bad_model", message, hint=hint, detail="static_batch")
    if math.prod(row) * (batch or 1) > MAX_ROW:
        message = f"one pass reads {math.prod(row) * (batch or 1)} numbers; at most {MAX_ROW} are allowed"
        raise Refused("bad_model", message, hint="Upload a model of smaller inputs.", detail="tensor_too_large")
    return batch, row if len(row) == len(sizes) - 1 else None


def _output(proto: ModelProto) -> ValueInfoProto:
    """The first output, labels before it left aside: it holds the scores."""
    hint = "A classifier returns one tensor of logits of shape (rows, classes), with two classes or more, as its first output."
    if not proto.graph.output:
        raise Refused("bad_model", "the graph has no output", hint=hint, detail="shape_mismatch")
    scores = (value for value in proto.graph.output if value.type.tensor_type.elem_type in _DTYPES)
    first: ValueInfoProto = next(scores, proto.graph.output[0])
    kind = first.type.tensor_type
    if not first.type.HasField("tensor_type") or kind.elem_type not in _DTYPES:
        raise Refused("bad_model", f"the first output {shown(first.name)} is {_kind(first)}", hint=hint, detail="shape_mismatch")
    if len(kind.shape.dim) != 2:
        message = f"the first output {shown(first.name)} has {len(kind.shape.dim)} axes"
        raise Refused("bad_model", message, hint=hint, detail="shape_mismatch")
    return first


def _tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Every tensor the file holds, in nodes too."""
    yield from proto.graph.initializer
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _array(tensor: TensorProto) -> tuple[str, np.ndarray] | None:
    """Weights: name and numbers of a tensor that is no scalar; None for everything else."""
    if tensor.data_type not in _DTYPES or not tensor.dims:
        return None
    try:
        return tensor.name, numpy_helper.to_array(tensor)
    except ValueError as error:
        message = f"tensor {shown(tensor.name)} holds another number of values than its shape {list(tensor.dims)} says"
        raise Refused("bad_model", message, hint=_EXPORT, detail="malformed") from error


def _nonfinite(numbers: list[tuple[str, np.ndarray]]) -> list[Finding]:
    bad = [name for name, array in numbers if not np.isfinite(array).all()]
    if not bad:
        return []
    message = f"{len(bad)} tensors of the model hold NaN or infinity, first {shown(bad[0])}"
    hint = "The training has diverged; attacks prove nothing."
    return [Finding(code="nan_weights", message=message, hint=hint, evidence={"tensors": [*bad[:50]]})]


def _drawing(proto: ModelProto) -> list[Finding]:
    found = sorted({node.op_type for node in proto.graph.node if node.op_type in _RANDOM})
    if not found:
        return []
    message = f"the model draws random numbers: {', '.join(found)}"
    hint = "Its answers vary from pass to pass; a single pass proves little."
    return [Finding(code="stochastic_ops", message=message, hint=hint, evidence={"operators": [*found]})]


def _kind(value: ValueInfoProto) -> str:
    if not value.type.HasField("tensor_type"):
        return f"a {value.type.WhichOneof('value') or 'value of no type'}, no tensor"
    element = value.type.tensor_type.elem_type
    return f"a tensor of {TensorProto.DataType.Name(element).lower() if element in TensorProto.DataType.values() else 'unknown numbers'}"


def _named(node: NodeProto) -> str:
    return f"{shown(node.op_type)}, node {shown(node.name)}," if node.name else shown(node.op_type)
