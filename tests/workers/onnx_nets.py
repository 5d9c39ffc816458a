"""ONNX graphs for tests: written by torch's own exporter, or node by node."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from sparring.contract.specs import DataSpec, ModelSpec
from sparring.workers.models import load_model
from workers import orders


def exported(model: nn.Module, path: Path, row: Sequence[int] = (1, 8, 8), batch: int | None = None, **options: Any) -> Path:
    """What torch.onnx.export makes of `model`: for any batch, or for one size alone."""
    free = {"x": {0: "batch"}, "y": {0: "batch"}} if batch is None else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is deprecated, and says so several times
        torch.onnx.export(
            model.eval(),
            (torch.rand(batch or 2, *row),),
            str(path),
            input_names=["x"],
            output_names=["y"],
            dynamic_axes=free,
            opset_version=17,
            dynamo=False,
            **options,
        )
    return path


def tensor(name: str, values: Any, dtype: Any = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=dtype), name)


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """`inputs` and `outputs` are names with blanks between."""
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def graph(
    nodes: Sequence[NodeProto],
    tensors: Sequence[TensorProto] = (),
    x: Sequence[int | str] = ("n", 1, 8, 8),
    y: Sequence[int | str] = ("n", 10),
    kinds: tuple[int, int] = (TensorProto.FLOAT, TensorProto.FLOAT),
    opset: int = 17,
) -> ModelProto:
    """A model with input x and output y."""
    source, target = helper.make_tensor_value_info("x", kinds[0], x), helper.make_tensor_value_info("y", kinds[1], y)
    made = helper.make_graph(list(nodes), "net", [source], [target], list(tensors))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


WEIGHTS = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32) / 8


def linear(*middle: NodeProto, tensors: Sequence[TensorProto] = (), after: str = "z", **given: Any) -> ModelProto:
    """Flatten, Gemm to `z`, then `middle`, which makes `y` of it; without it the scores are those of the Gemm."""
    ends = "y" if not middle else after
    nodes = [node("Flatten", "x", "flat"), node("Gemm", "flat w", ends), *middle]
    return graph(nodes, [tensor("w", WEIGHTS), *tensors], **given)


def save(model: ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def load(path: Path, spec: ModelSpec | None = None) -> Any:
    return load_model(path, "onnx", spec or ModelSpec())


def digits(path: Path, rows: int = 120, x: np.ndarray | None = None) -> Path:
    images, labels = orders.digits()
    np.savez(path, x=(images if x is None else x)[:rows], y=labels[:rows])
    return path


JOB = {"threats": [{"norm": "linf", "eps": 0.05}], "attacks": [{"kind": "noise", "draws": 3}, {"kind": "pgd", "steps": 4}]}


def ordered(folder: Path, model: Path, job: dict[str, Any] = JOB, x: np.ndarray | None = None, **given: Any) -> Any:
    """An order on `model` and 120 digits, or on the rows `x` in their place."""
    return orders.order(folder, model, digits(folder / "data.npz", x=x), job, given.get("spec"), given.get("meaning") or DataSpec())
