"""A random forest, which has no slope, attacked through its scores: as an ONNX file, and behind an endpoint that speaks v2."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.ensemble import RandomForestClassifier
from sqlalchemy import Engine
from workers.endpoints import SQUARE, Case
from workers.onnx_nets import load, ordered
from workers.orders import digits, report, serve, wait_for

from sparring.contract.runner import Done
from sparring.workers.errors import Refused
from sparring.workers.onnx_file import read_onnx

skl2onnx = pytest.importorskip("skl2onnx", reason="NO SKL2ONNX: no forest was converted")
SERVER = Path(__file__).parents[2] / "examples" / "endpoint_server.py"
TOKEN = "s3cr3t-f0r-the-f0rest"


class Forest(NamedTuple):
    path: Path
    fitted: RandomForestClassifier
    proto: onnx.ModelProto

    def wrong(self, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """By onnxruntime, asked anew."""
        session = onnxruntime.InferenceSession(str(self.path), providers=["CPUExecutionProvider"])
        (scores,) = session.run(["probabilities"], {session.get_inputs()[0].name: x.reshape(len(x), -1).astype(np.float32)})
        return scores.argmax(1) != labels


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Forest:
    x, y = digits()
    flat = x.reshape(len(x), -1).astype(np.float32) / 255
    fitted = RandomForestClassifier(20, max_depth=8, random_state=0).fit(flat[200:], y[200:])
    proto = skl2onnx.to_onnx(fitted, flat[:1], options={"zipmap": False}, target_opset=17)
    path = tmp_path_factory.mktemp("forest") / "forest.onnx"
    path.write_bytes(proto.SerializeToString())
    return Forest(path, fitted, proto)


def broken(out: Path, told: Any, forest: Forest, rows: int) -> int:
    """How many rows the attack broke; each is wrong where it says, and right where it was."""
    x, y = digits()
    clean = x[:rows].astype(np.float32) / 255
    with np.load(out, allow_pickle=False) as examples:
        at, points = examples["row"], examples["x"]
    assert forest.wrong(points, y[at]).all()
    assert np.abs(points - clean[at]).max() <= told.threats[0].threat.radius + 1e-7
    was_wrong = forest.wrong(clean, y[:rows])
    assert told.clean.count == rows - was_wrong.sum()
    return int((~was_wrong[at]).sum())


def test_a_forest_in_a_file_is_attacked_through_its_scores(forest: Forest, tmp_path: Path) -> None:
    given = ordered(tmp_path, forest.path, {"threats": [{"norm": "linf", "eps": 0.1}], "attacks": [SQUARE], "rows": 60})
    done = serve(given)
    assert isinstance(done, Done), done
    told = report(given)
    assert [found.code for found in told.warnings][:2] == ["score_access_only", "probabilities"]
    assert "TreeEnsembleClassifier has no counterpart in torch" in told.warnings[0].message
    assert (told.model.classes, told.model.format) == (10, "onnx")
    assert told.clean.count > 50
    assert broken(Path(given.out) / "examples.npz", told, forest, 60) > 10


def harmed(name: str, at: int, value: int) -> Any:
    def change(proto: onnx.ModelProto) -> None:
        (attribute,) = (a for a in proto.graph.node[0].attribute if a.name == name)
        attribute.ints[at] = value

    return change


@pytest.mark.parametrize(
    "harm",
    [
        harmed("nodes_truenodeids", 0, 0),
        harmed("nodes_truenodeids", 0, 10**6),
        harmed("nodes_falsenodeids", 0, -5),
        harmed("nodes_featureids", 0, -(10**7)),
        harmed("nodes_featureids", 0, 10**7),
        harmed("class_ids", 0, 10**7),
    ],
    ids=["itself", "no such node", "negative node", "negative feature", "no such feature", "no such class"],
)
def test_a_tree_that_leads_astray_is_refused(forest: Forest, tmp_path: Path, harm: Any) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(forest.proto)
    harm(proto)
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(Refused) as refused:
        load(path)
    assert refused.value.reason.code == "bad_model"


def test_scores_in_a_map_are_refused_with_the_way_out(tmp_path: Path, forest: Forest) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(skl2onnx.to_onnx(forest.fitted, np.zeros((1, 64), np.float32), target_opset=17).SerializeToString())
    with pytest.raises(Refused, match="ZipMap") as refused:
        read_onnx(path)
    assert "zipmap" in refused.value.reason.hint


@pytest.fixture(scope="module")
def server(forest: Forest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The example, serving the forest in a process of its own; it wants a token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "TOKEN": TOKEN}
    with (tmp_path_factory.mktemp("server") / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-P", str(SERVER), str(forest.path), "--port", str(port)], env=environment, stderr=log)

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(answers, 60)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


HEADERS = {"Authorization": "secret:TOKEN"}
V2 = {"kind": "v2", "model": "model", "input": "X", "output": "probabilities", "gives": "probabilities", "shape": [64], "headers": HEADERS}


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_a_forest_behind_an_endpoint_is_attacked_over_http(
    forest: Forest, server: str, sqlite_engine: Engine, tmp_path: Path, batch: int
) -> None:
    case = Case(sqlite_engine, tmp_path / "data", V2 | {"url": server, "batch": batch})
    case.allow({"origin": server, "secrets": {"TOKEN": f"Bearer {TOKEN}"}})
    job = case.submit()
    told = case.report(case.serve(job))
    assert [found.code for found in told.warnings] == ["score_access_only", "probabilities"]
    assert server in told.provenance.judge
    assert told.provenance.rows_independent
    assert told.cost.asked
    assert told.cost.sent
    assert told.cost.sent < told.cost.asked if batch > 1 else told.cost.sent == told.cost.asked
    assert broken(case.settings.work / job / "1" / "examples.npz", told, forest, 40) > 5


@pytest.mark.slow
def test_the_other_way_of_asking_the_example(server: str, sqlite_engine: Engine, tmp_path: Path) -> None:
    """Labels alone, in JSON of the server's own: only decisions can be attacked."""
    endpoint = {"kind": "endpoint", "url": f"{server}/predict", "response": "/labels", "gives": "labels", "headers": HEADERS}
    case = Case(sqlite_engine, tmp_path / "data", endpoint, classes=10)
    case.allow({"origin": server, "secrets": {"TOKEN": f"Bearer {TOKEN}"}})
    told = case.run(attacks=[{"kind": "noise", "draws": 5}], threats=[{"norm": "linf", "eps": 0.4}])
    assert [found.code for found in told.warnings] == ["label_access_only"]
    assert told.clean.count > 30
    assert told.threats[0].worst.count < told.clean.count


def test_without_the_right_token_the_job_says_so(server: str, sqlite_engine: Engine, tmp_path: Path) -> None:
    case = Case(sqlite_engine, tmp_path / "data", V2 | {"url": server})
    case.allow({"origin": server, "secrets": {"TOKEN": "Bearer wr0ng-t0ken"}})
    info = case.serve(case.submit())
    assert info.reason
    assert (info.state, info.reason.code, info.reason.detail) == ("failed", "endpoint_failed", "status_401")
    assert "wr0ng" not in info.model_dump_json()
