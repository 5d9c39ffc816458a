"""Files that are no ONNX, or more than we read: each is refused with a code and a hint, and nothing beside it is opened."""

import pickle
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper
from workers.onnx_nets import WEIGHTS, exported, graph, linear, load, node, save, tensor

from sparring.contract.specs import ModelSpec
from sparring.storage.sniff import Malformed, Unsafe, sniff_model
from sparring.workers.errors import Refused
from sparring.workers.onnx_file import read_onnx
from workers import orders


def refused(path: Path, spec: ModelSpec | None = None) -> tuple[str, str]:
    """Code and detail of the refusal, which has a message and a hint."""
    with pytest.raises(Refused) as caught:
        load(path, spec)
    reason = caught.value.reason
    assert reason.message
    assert reason.hint
    assert str(path.parent) not in reason.message
    return reason.code, reason.detail


def external(location: str) -> ModelProto:
    model = linear()
    held = model.graph.initializer[0]
    held.ClearField("raw_data")
    held.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "2560")):
        entry = held.external_data.add()
        entry.key, entry.value = key, value
    return model


def in_a_node() -> ModelProto:
    value = external("w.bin").graph.initializer[0]
    return graph([node("Constant", "", "w", value=value), node("Flatten", "x", "flat"), node("Gemm", "flat w", "y")])


def hollow(*dims: int, **data: object) -> ModelProto:
    """A weight that claims a shape and holds next to nothing."""
    model = linear()
    held = model.graph.initializer[0]
    del held.dims[:]
    held.dims.extend(dims)
    held.raw_data = bytes(16)
    for field, values in data.items():
        held.ClearField("raw_data")
        getattr(held, field).extend(values)
    return model


def branch() -> ModelProto:
    def body(value: float) -> object:
        made = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
        return helper.make_graph([node("Constant", "", "b", value=tensor("c", [value]))], "body", [], [made])

    return linear(node("If", "yes", "y", then_branch=body(0), else_branch=body(1)), tensors=[tensor("yes", True, bool)])


def forever() -> ModelProto:
    going = helper.make_tensor_value_info("going", TensorProto.BOOL, [])
    count = helper.make_tensor_value_info("count", TensorProto.INT64, [])
    body = helper.make_graph([node("Identity", "going", "still")], "body", [count, going], [helper.make_tensor_value_info("still", 9, [])])
    return linear(node("Loop", " yes", "", body=body), node("Identity", "z", "y"), tensors=[tensor("yes", True, bool)])


def function() -> ModelProto:
    model = linear(node("Twice", "z", "y", domain="own"))
    model.opset_import.append(helper.make_opsetid("own", 1))
    body = [node("Add", "a a", "b")]
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    return model


def foreign() -> ModelProto:
    model = linear(node("Gelu", "z", "y", domain="com.microsoft"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def sparse() -> ModelProto:
    model = linear()
    values, indices = tensor("w", [1.0]), tensor("", [0], np.int64)
    del model.graph.initializer[:]
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 20, 1 << 20]))
    return model


def inputs(*names: str) -> ModelProto:
    model = linear()
    del model.graph.input[:]
    model.graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 8, 8]) for name in names)
    if "x" not in names:
        model.graph.node[0].CopyFrom(node("Constant", "", "flat", value=tensor("c", np.zeros((2, 64)))))
    return model


def changed(change: Callable[[ModelProto], object]) -> ModelProto:
    model = linear()
    change(model)
    return model


def opset(version: int) -> Callable[[ModelProto], object]:
    return lambda model: setattr(model.opset_import[0], "version", version)


UNSUPPORTED, BAD = "unsupported", "bad_model"
LABELS = [node("ArgMax", "z", "y", axis=1, keepdims=0)]
CASES: dict[str, tuple[Callable[[], ModelProto], str, str]] = {
    "weights beside the file": (lambda: external("w.bin"), BAD, "unsafe_format"),
    "weights in a folder above": (lambda: external("../w.bin"), BAD, "unsafe_format"),
    "weights at an absolute path": (lambda: external("/etc/passwd"), BAD, "unsafe_format"),
    "weights of a node elsewhere": (in_a_node, BAD, "unsafe_format"),
    "a shape of 4 TiB": (lambda: hollow(1 << 20, 1 << 20), BAD, "malformed"),
    "a shape of 256 GiB in floats": (lambda: hollow(64, 1 << 30, float_data=[1.0]), BAD, "malformed"),
    "a shape beyond 64 bits": (lambda: hollow(1 << 33, 1 << 33), BAD, "malformed"),
    "a negative shape": (lambda: hollow(-64, 10), BAD, "malformed"),
    "a shape of fewer numbers": (lambda: hollow(1), BAD, "malformed"),
    "sparse weights": (sparse, UNSUPPORTED, "tensor_layout"),
    "a branch": (branch, UNSUPPORTED, "unsupported_op"),
    "a loop without end": (forever, UNSUPPORTED, "unsupported_op"),
    "a function of its own": (function, UNSUPPORTED, "unsupported_op"),
    "another domain": (foreign, UNSUPPORTED, "unsupported_op"),
    "an unknown operator": (lambda: linear(node("Nope", "z", "y")), BAD, "malformed"),
    "a dangling name": (lambda: linear(node("Relu", "nothing", "y")), BAD, "malformed"),
    "no graph": (lambda: changed(lambda model: model.ClearField("graph")), BAD, "malformed"),
    "no opset": (lambda: changed(lambda model: model.ClearField("opset_import")), BAD, "malformed"),
    "an opset of the future": (lambda: changed(opset(99)), UNSUPPORTED, "opset_version"),
    "two inputs": (lambda: inputs("x", "mask"), BAD, "shape_mismatch"),
    "no input": (lambda: inputs(), BAD, "shape_mismatch"),
    "an input of integers": (
        lambda: graph([node("Cast", "x", "y", to=1)], kinds=(TensorProto.INT64, TensorProto.FLOAT), x=("n", 10)),
        UNSUPPORTED,
        "input_dtype",
    ),
    "an input of words": (
        lambda: graph([node("StringNormalizer", "x", "y")], kinds=(TensorProto.STRING, TensorProto.STRING), x=(4,), y=(4,)),
        UNSUPPORTED,
        "input_dtype",
    ),
    "an input without rows": (lambda: graph([node("Gemm", "x w", "y")], [tensor("w", WEIGHTS)], x=(64,)), BAD, "malformed"),
    "an input of one axis": (lambda: graph([node("Relu", "x", "y")], x=(64,), y=(64,)), BAD, "shape_mismatch"),
    "rows of 2**40 numbers": (
        lambda: graph([node("Flatten", "x", "y")], x=("n", 1 << 20, 1 << 20), y=("n", 1 << 40)),
        BAD,
        "tensor_too_large",
    ),
    "batches of 100000": (lambda: graph([node("Flatten", "x", "y")], x=(100_000, 10), y=(100_000, 10)), BAD, "static_batch"),
    "labels in place of scores": (lambda: linear(*LABELS, y=["n"], kinds=(1, TensorProto.INT64)), BAD, "shape_mismatch"),
    "scores of three axes": (
        lambda: linear(node("Unsqueeze", "z last", "y"), tensors=[tensor("last", [2], np.int64)], y=("n", 10, 1)),
        BAD,
        "shape_mismatch",
    ),
    "one class": (lambda: linear(node("ReduceMax", "z", "y", axes=[1]), y=("n", 1)), BAD, "shape_mismatch"),
    "one answer for all rows": (lambda: linear(node("ReduceMax", "z", "y", axes=[0]), y=(1, 10)), BAD, "shape_mismatch"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_read_is_refused_with_a_reason(case: str, tmp_path: Path) -> None:
    made, code, detail = CASES[case]
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    assert refused(save(made(), tmp_path / "m.onnx")) == (code, detail)


def test_a_sound_file_beside_all_those_is_read(tmp_path: Path) -> None:
    loaded = load(save(linear(), tmp_path / "m.onnx"))
    assert (loaded.classes, loaded.input_shape, loaded.parameters, loaded.findings) == (10, (1, 8, 8), 640, ())


@pytest.mark.parametrize("keep", [3, 20, 0.5, -3])
def test_a_file_cut_off_is_malformed(keep: float, tmp_path: Path) -> None:
    whole = linear().SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    assert refused(path) == ("bad_model", "malformed")


def test_other_bytes_under_the_name_onnx_never_reach_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for content, refusal in ((pickle.dumps({"a": 1}), Unsafe), (b"", Malformed), (b"<!DOCTYPE html>", Malformed)):
        path.write_bytes(content)
        with pytest.raises(refusal):
            sniff_model(content, path)
        if content:
            assert refused(path) == ("bad_model", "malformed")


@pytest.mark.parametrize("field", ["producer_name", "model_version", "doc_string", "domain"])
def test_whatever_field_comes_first_a_file_is_told_to_be_onnx(field: str, tmp_path: Path) -> None:
    model = linear()
    for name in ("producer_name", "producer_version"):
        model.ClearField(name)
    setattr(model, field, 3 if field == "model_version" else "said")
    path = save(model, tmp_path / "m.onnx")
    assert sniff_model(path.read_bytes()[:512], path) == "onnx"


@pytest.mark.parametrize("much", [1 << 34, 1 << 40])
def test_a_graph_that_asks_for_too_much_memory_is_refused(much: int, tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_AS)
    swell = [node("ConstantOfShape", "much", "c"), node("ReduceSum", "c", "sum", keepdims=0), node("Add", "z sum", "y")]
    path = save(linear(*swell, tensors=[tensor("much", [much], np.int64)]), tmp_path / "m.onnx")
    assert refused(path) == ("bad_model", "tensor_too_large")
    assert resource.getrlimit(resource.RLIMIT_AS) == limit


def test_a_graph_whose_memory_grows_with_its_rows_is_refused(tmp_path: Path) -> None:
    nodes = [node("Shape", "x", "s"), node("ReduceProd", "s", "p"), node("Mul", "p k", "m"), node("ConstantOfShape", "m", "c")]
    nodes += [node("ReduceSum", "c", "sum", keepdims=0), node("Add", "z sum", "y")]
    path = save(linear(*nodes, tensors=[tensor("k", [1 << 26], np.int64)]), tmp_path / "m.onnx")
    assert refused(path) == ("bad_model", "tensor_too_large")


def test_declared_classes_and_architectures_are_checked(tmp_path: Path) -> None:
    path = save(linear(), tmp_path / "m.onnx")
    assert refused(path, ModelSpec(classes=7)) == ("bad_model", "shape_mismatch")
    assert refused(path, ModelSpec(arch="mlp")) == ("bad_model", "arch_refused")
    assert load(path, ModelSpec(classes=10)).classes == 10


def test_weights_that_are_not_finite_and_operators_that_draw_are_findings(tmp_path: Path) -> None:
    bad = WEIGHTS.copy()
    bad[3, 3] = np.nan
    nodes = [node("Flatten", "x", "f"), node("RandomNormalLike", "f", "r"), node("Add", "f r", "a"), node("Gemm", "a w", "y")]
    found = read_onnx(save(graph(nodes, [tensor("w", bad)]), tmp_path / "m.onnx")).findings
    assert [(finding.code, finding.evidence) for finding in found] == [
        ("nan_weights", {"tensors": ["w"]}),
        ("stochastic_ops", {"operators": ["RandomNormalLike"]}),
    ]


def test_weights_listed_among_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    """As every exporter did before IR version 4."""
    model = linear()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [64, 10]))
    assert load(save(model, tmp_path / "m.onnx")).classes == 10


def test_a_row_of_unknown_size_is_left_to_the_data(tmp_path: Path) -> None:
    read = read_onnx(exported(orders.network(), tmp_path / "m.onnx"))
    assert (read.batch, read.row) == (None, (1, 8, 8))
    pooled = graph([node("GlobalMaxPool", "x", "p"), node("Flatten", "p", "y")], x=("n", 3, "h", "w"), y=("n", 3))
    loaded = load(save(pooled, tmp_path / "p.onnx"))
    assert (loaded.input_shape, loaded.classes) == (None, 0)
