"""An ONNX model as judge and search copy: the same answers whatever batch, layout and precision it was exported for."""

import copy
import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper
from torch import Tensor, nn
from workers.onnx_nets import JOB, WEIGHTS, exported, graph, linear, load, node, ordered, save, tensor

from sparring.contract.specs import DataSpec, ModelSpec
from sparring.storage.sniff import sniff_model
from sparring.workers.bench import Bench, Facts
from sparring.workers.errors import Refused
from sparring.workers.onnx_judge import VERSION, Judge
from sparring.workers.onnx_search import InParts, difference, tolerance
from sparring.workers.preflight import preflight
from workers import orders


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return orders.trained(orders.network(), epochs=3)


def looked(folder: Path, path: Path, job: dict[str, Any] = JOB, x: np.ndarray | None = None, **given: Any) -> tuple[Facts, Bench]:
    return preflight(ordered(folder, path, job, x, **given), torch.device("cpu"), 64)


def codes(facts: Facts) -> list[str]:
    return [finding.code for finding in facts.findings]


def agrees(bench: Bench, model: nn.Module, rows: int = 100) -> None:
    """Scores of judge and search, and slopes, are those of the torch module."""
    x = bench.rows(torch.arange(rows))
    with torch.no_grad():
        expected = model(x)
    assert torch.allclose(bench.target.verdict(x), expected, atol=1e-4)
    assert torch.allclose(bench.target.logits(x), expected, atol=1e-4)
    part = x[:64].clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(part).logsumexp(1).sum(), part)
    assert torch.allclose(bench.target.slope(lambda z: z.logsumexp(1), x[:64])[-1], slope, atol=1e-4)


def test_an_exported_network_is_judged_by_onnxruntime_and_searched_in_torch(model: nn.Module, tmp_path: Path) -> None:
    facts, bench = looked(tmp_path, exported(model, tmp_path / "m.onnx"))
    assert (facts.findings, facts.access, facts.independent, facts.classes) == ((), "gradient", True, 10)
    assert facts.judge == f"onnxruntime {VERSION} on the uploaded file"
    assert facts.search == ("converted to torch", "parameters frozen", "channels last")
    assert isinstance(bench.loaded.module, Judge)
    agrees(bench, model)


def test_batch_norm_left_in_the_graph(model: nn.Module, tmp_path: Path) -> None:
    path = exported(model, tmp_path / "m.onnx", training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)
    assert "BatchNormalization" in {each.op_type for each in onnx.load(path).graph.node}
    facts, bench = looked(tmp_path, path)
    assert (facts.findings, facts.access) == ((), "gradient")
    agrees(bench, model)


@pytest.mark.parametrize("batch", [1, 5, 100])
def test_a_graph_of_one_batch_size_is_freed_from_it(batch: int, model: nn.Module, tmp_path: Path) -> None:
    facts, bench = looked(tmp_path, exported(model, tmp_path / "m.onnx", batch=batch))
    assert (facts.findings, facts.access, facts.independent) == ((), "gradient", True)
    assert facts.judge.endswith("on the uploaded file, its batch size made free")
    assert bench.loaded.module.batch is None
    agrees(bench, model)


class Linear(nn.Module):
    """The module that `linear()` is the graph of."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ torch.from_numpy(WEIGHTS)


def hard(batch: int) -> ModelProto:
    """The batch stands in a Reshape."""
    shape = tensor("shape", [batch, 64], np.int64)
    nodes = [node("Reshape", "x shape", "flat"), node("Gemm", "flat w", "y")]
    return graph(nodes, [tensor("w", WEIGHTS), shape], x=(batch, 1, 8, 8), y=(batch, 10))


@pytest.mark.parametrize("batch", [1, 5, 100])
def test_a_graph_that_cannot_be_freed_runs_in_passes_of_its_own_size(batch: int, tmp_path: Path) -> None:
    facts, bench = looked(tmp_path, save(hard(batch), tmp_path / "m.onnx"))
    assert facts.judge.endswith(f"on the uploaded file, in passes of {batch} rows")
    assert (facts.access, facts.independent) == ("gradient", True)
    assert isinstance(bench.loaded.search, InParts)
    agrees(bench, Linear())


def test_a_graph_whose_rows_would_mix_when_freed_keeps_its_own_size(tmp_path: Path) -> None:
    """A softmax along the batch is nothing for one row and everything for a tile."""
    nodes = [node("Softmax", "z", "s", axis=0), node("Mul", "z s", "y")]
    facts, bench = looked(tmp_path, save(linear(*nodes, x=(1, 1, 8, 8), y=(1, 10)), tmp_path / "m.onnx"))
    assert facts.judge.endswith("in passes of 1 rows")
    agrees(bench, Linear())


def test_rows_that_mix_in_any_batch_are_said(tmp_path: Path) -> None:
    nodes = [node("Softmax", "z", "s", axis=0), node("Mul", "z s", "y")]
    facts, _ = looked(tmp_path, save(linear(*nodes), tmp_path / "m.onnx"))
    assert "rows_interact" in codes(facts)


def test_a_graph_in_nhwc(model: nn.Module, tmp_path: Path) -> None:
    path = exported(model, tmp_path / "m.onnx")
    proto = onnx.load(path)
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    dims[1].dim_value, dims[3].dim_value = 8, 1
    proto.graph.node.insert(0, node("Transpose", "x", "turned", perm=[0, 3, 1, 2]))
    for each in proto.graph.node[1:]:
        each.input[:] = ["turned" if name == "x" else name for name in each.input]
    del proto.graph.value_info[:]
    facts, bench = looked(tmp_path, save(proto, path), spec=ModelSpec(layout="NHWC"))
    assert (facts.findings, facts.shape) == ((), (120, 1, 8, 8))
    agrees(bench, model)
    images = np.ascontiguousarray(orders.digits()[0].transpose(0, 2, 3, 1))
    (tmp_path / "both").mkdir()
    facts, bench = looked(tmp_path / "both", path, x=images, spec=ModelSpec(layout="NHWC"), meaning=DataSpec(layout="NHWC"))
    assert (facts.findings, facts.shape) == ((), (120, 8, 8, 1))
    assert torch.allclose(
        bench.target.verdict(bench.rows(torch.arange(9))), model(bench.rows(torch.arange(9)).permute(0, 3, 1, 2)), atol=1e-4
    )


def test_probabilities_are_recognised_and_their_logarithm_attacked(model: nn.Module, tmp_path: Path) -> None:
    facts, bench = looked(tmp_path, exported(nn.Sequential(copy.deepcopy(model), nn.Softmax(1)), tmp_path / "m.onnx"))
    assert codes(facts) == ["probabilities"]
    assert facts.probabilities
    x = bench.rows(torch.arange(40))
    for ask in (bench.target.verdict, bench.target.logits):
        assert torch.allclose(ask(x).softmax(1), model(x).softmax(1), atol=1e-5)
    assert float(bench.target.slope(lambda z: z.logsumexp(1) - z.amax(1), x)[-1].abs().max()) < float("inf")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_precisions(dtype: torch.dtype, model: nn.Module, tmp_path: Path) -> None:
    kind = {torch.float16: TensorProto.FLOAT16, torch.float64: TensorProto.DOUBLE}[dtype]
    weights = tensor("w", WEIGHTS, np.float16 if dtype == torch.float16 else np.float64)
    nodes = [node("Flatten", "x", "flat"), node("MatMul", "flat w", "y")]
    facts, bench = looked(tmp_path, save(graph(nodes, [weights], kinds=(kind, kind)), tmp_path / "m.onnx"))
    assert facts.access == "gradient"
    assert bench.loaded.dtype == dtype
    x = bench.rows(torch.arange(50))
    assert torch.allclose(bench.target.verdict(x).float(), Linear()(x), atol=2e-2 if dtype == torch.float16 else 1e-5)


def test_rows_of_a_size_the_graph_leaves_open(tmp_path: Path) -> None:
    nodes = [node("Conv", "x k", "c"), node("GlobalMaxPool", "c", "p"), node("Flatten", "p", "y")]
    kernels = tensor("k", np.random.default_rng(1).normal(size=(10, 1, 3, 3)))
    facts, bench = looked(tmp_path, save(graph(nodes, [kernels], x=("n", 1, "h", "w")), tmp_path / "m.onnx"))
    assert (facts.classes, facts.access, bench.loaded.input_shape) == (10, "gradient", None)
    with pytest.raises(Refused, match="not 7 as declared"):
        looked(tmp_path, tmp_path / "m.onnx", spec=ModelSpec(classes=7))


def test_further_outputs_are_left_alone(model: nn.Module, tmp_path: Path) -> None:
    proto = onnx.load(exported(model, tmp_path / "m.onnx"))
    inner = proto.graph.node[1].output[0]
    proto.graph.output.append(helper.make_tensor_value_info(inner, TensorProto.FLOAT, ["batch", 8, 8, 8]))
    facts, bench = looked(tmp_path, save(proto, tmp_path / "m.onnx"))
    assert facts.findings == ()
    agrees(bench, model)


def test_names_that_differ_in_a_dot_stay_apart(tmp_path: Path) -> None:
    """As identifiers of Python they would be one and the same."""
    nodes = [node("Flatten", "x", "a/b"), node("Gemm", "a/b w.1", "a.b"), node("Add", "a.b w_1", "y")]
    bias = np.arange(10, dtype=np.float32)
    facts, bench = looked(tmp_path, save(graph(nodes, [tensor("w.1", WEIGHTS), tensor("w_1", bias)]), tmp_path / "m.onnx"))
    assert facts.access == "gradient"
    x = bench.rows(torch.arange(20))
    assert torch.allclose(bench.target.logits(x), Linear()(x) + torch.from_numpy(bias), atol=1e-4)


def test_an_operator_torch_has_not_leaves_the_scores(tmp_path: Path) -> None:
    nodes = [node("Flatten", "x", "flat"), node("Gemm", "flat w", "z"), node("Unsqueeze", "z last", "long"), node("DFT", "long", "f")]
    nodes.append(node("ReduceSum", "f last", "y", keepdims=0))
    facts, bench = looked(tmp_path, save(graph(nodes, [tensor("w", WEIGHTS), tensor("last", [2], np.int64)]), tmp_path / "m.onnx"))
    assert facts.access == "score"
    assert (codes(facts)[0], codes(facts)[-1], facts.independent) == ("score_access_only", "attacks_left_out", True)
    assert facts.findings[0].evidence == {"reason": "its operator DFT has no counterpart in torch"}
    assert facts.findings[-1].evidence == {"attacks": ["pgd"]}
    assert bench.target.judge is bench.target.search


def test_unlike_answers_leave_the_scores(tmp_path: Path) -> None:
    """Random numbers come out differently every time, in torch and in onnxruntime."""
    nodes = [node("RandomNormalLike", "z", "r"), node("Add", "z r", "y")]
    facts, _ = looked(tmp_path, save(linear(*nodes), tmp_path / "m.onnx"))
    assert facts.access == "score"
    assert {"stochastic_ops", "score_access_only", "attacks_left_out", "not_deterministic"} <= set(codes(facts))
    (said,) = [finding for finding in facts.findings if finding.code == "score_access_only"]
    assert "answers differently" in said.message
    assert said.hint


def test_differences_are_relative_to_the_range_of_the_scores() -> None:
    scores = torch.tensor([[0.0, 100.0], [50.0, 20.0]])
    assert difference(scores + 0.005, scores) == pytest.approx(5e-5, rel=1e-3)
    assert difference(scores * float("nan"), scores) == float("inf")
    assert difference(scores[:1], scores) == float("inf")
    assert tolerance(torch.float32) == 1e-4 < tolerance(torch.float16) < 1e-2


@pytest.mark.parametrize(("name", "layers"), [("256x2", 2), ("256x4", 4), ("256x6", 6)])
def test_published_networks_reach_their_published_accuracy(name: str, layers: int, realdata: Path, mnist_npz: Path, tmp_path: Path) -> None:
    """VNN-COMP 2021: exported for one row of shape (784, 1); they are right on 98.08, 97.64 and 96.89 % of MNIST's test images."""
    path = realdata / "models" / "vnncomp_mnist_fc_2021" / "onnx" / f"mnist-net_{name}.onnx"
    assert sniff_model(path.read_bytes()[:512], path) == "onnx"
    facts, bench = preflight(orders.order(tmp_path, path, mnist_npz, JOB), torch.device("cpu"), 64)
    assert (facts.access, facts.independent) == ("gradient", True)
    assert codes(facts) == (["gradient_absent"] if layers == 6 else [])  # it is so sure of one row that its loss is flat there
    assert facts.parameters == 784 * 256 + 256 + (layers - 1) * (256 * 256 + 256) + 256 * 10 + 10
    labels = torch.from_numpy(bench.data.labels.copy())
    right = int((bench.target.labels(bench.rows(torch.arange(10_000))) == labels).sum())
    assert right == {"256x2": 9808, "256x4": 9764, "256x6": 9689}[name]


def test_published_counterexamples_are_counterexamples(realdata: Path) -> None:
    folder = realdata / "models" / "vnncomp_mnist_fc_2021"
    with (folder / "instances.csv").open(newline="") as file:
        instances = {int(row["idx"]): row for row in csv.DictReader(file)}
    with np.load(folder / "counterexamples.npz") as known:
        found = list(zip(known["idx"].tolist(), torch.from_numpy(known["x"]), strict=True))
    assert len(found) == 20
    judges = {name: load(folder / "onnx" / name).module for name in {row["onnx"] for row in instances.values()}}
    for at, x in found:
        scores = judges[instances[at]["onnx"]](x.reshape(1, 784, 1))[0]
        label = int(instances[at]["true_label"])
        assert float(torch.cat((scores[:label], scores[label + 1 :])).max()) >= float(scores[label])


def test_whoever_only_directs_loads_no_onnx() -> None:
    """Sessions are started in row processes, after their fork; the runner's parent process knows nothing of them."""
    program = "import sys, sparring.workers.runner; print(sorted({'onnx', 'onnxruntime', 'onnx2fx'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-P", "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
