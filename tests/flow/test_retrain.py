"""A model goes up in each format, is trained, comes back, and elsewhere gives the numbers of its report; a training outlives its runner."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from flow.conftest import Ready
from flow.stack import eventually
from safetensors.torch import save_file
from workers.onnx_nets import exported
from workers.orders import export, network, trained

from sparring.contract.retrained import RetrainReport, Source
from sparring.contract.specs import ModelFormat, ModelSpec
from sparring.workers.zoo import Mlp

JOB = {"kind": "retrain", "threats": [{"norm": "linf", "eps": 0.05}], "suite": "quick", "device": "cpu"}
DEFENSE = {"kind": "pgd", "eps": 0.05, "steps": 3}
LOADED = """
import json, sys
import numpy as np
model, rows = sys.argv[1:]
with np.load(rows) as file:
    x, y = file["x"].astype(np.float32) / 255, file["y"]
if model.endswith(".onnx"):
    import onnxruntime
    session = onnxruntime.InferenceSession(model)
    scores = session.run(None, {session.get_inputs()[0].name: x})[0]
else:
    import torch
    if model.endswith(".pt2"):
        network = torch.export.load(model).module()
    else:
        from safetensors.torch import load_file
        weights = load_file(model)
        network = lambda x: torch.relu(x.flatten(1) @ weights["l1.weight"].T + weights["l1.bias"]) @ weights["l2.weight"].T
    with torch.no_grad():
        scores = network(torch.from_numpy(x)).numpy()
assert not any(name.split(".")[0] == "sparring" for name in sys.modules)
print(json.dumps([int((scores.argmax(1) == y).sum()), len(y)]))
"""


def uploaded(form: ModelFormat, folder: Path) -> tuple[Path, ModelSpec]:
    """A small trained model as a file, and what is declared about it."""
    if form == "safetensors":
        net = trained(Mlp({"l1": (64, 32, True), "l2": (32, 10, False)}))
        save_file({name: weight.contiguous() for name, weight in net.state_dict().items()}, folder / "model.safetensors")
        return folder / "model.safetensors", ModelSpec(arch="mlp")
    net = trained(network())
    return (exported(net, folder / "model.onnx") if form == "onnx" else export(net, folder / "model.pt2")), ModelSpec()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pt2", "onnx", "safetensors"])
def test_it_comes_back_as_it_went_and_gives_the_reported_numbers_elsewhere(form: ModelFormat, ready: Ready, tmp_path: Path) -> None:
    stack, (model, spec) = ready.stack, uploaded(form, tmp_path)
    before = model.read_bytes()
    up = stack.client.models.upload(model, spec=spec)
    training = {"epochs": 2, "monitor": 0}
    job = stack.submit(**JOB, model=up.id, data=ready.data, defenses=[DEFENSE], training=training)
    info = stack.ended(job)
    assert info.state == "succeeded", info.reason
    report = stack.client.jobs.retrained(job)
    assert report.best.files.keys() >= {form, "pt2", "safetensors"}
    assert stack.client.models.download(up.id, tmp_path / "same").read_bytes() == before, "the uploaded model is left as it is"
    rows = stack.client.jobs.artifact(job, "test.npz", tmp_path / "test.npz")
    for kind in {form, "pt2"}:
        name = report.best.files[kind]
        back = stack.client.jobs.artifact(job, name, tmp_path / f"back-{name}")
        clean = printed_without_us(LOADED, back, rows)
        assert clean == [report.best.after.clean.count, report.best.after.clean.total]
    again = version_measured(ready, info.models[0], rows)
    assert again.clean == report.best.after.clean
    assert again.threats[0].worst == report.best.after.threats[0].worst


def printed_without_us(script: str, *arguments: Path) -> list[int]:
    """What a fresh process prints that has never heard of Sparring."""
    done = subprocess.run([sys.executable, "-P", "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: list[int] = json.loads(done.stdout)
    return found


def version_measured(ready: Ready, model: str, rows: Path):
    """The new version, evaluated as if it were any model."""
    data = ready.stack.client.datasets.upload(rows).id
    job = ready.stack.submit(model=model, data=data, threats=JOB["threats"], suite="quick", device="cpu")
    assert ready.stack.ended(job).state == "succeeded"
    return ready.stack.client.jobs.report(job)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "epochs"), [("pgd", 60), ("ensemble", 80)])
def test_a_training_whose_runner_is_killed_ends_in_the_same_weights(ready: Ready, tmp_path: Path, kind: str, epochs: int) -> None:
    stack = ready.stack
    rival = stack.client.models.upload(export(trained(network(), epochs=3), tmp_path / "rival.pt2"))
    defense = DEFENSE | {"steps": 10} if kind == "pgd" else {"kind": kind, "eps": 0.05, "models": [rival.id]}
    given = JOB | {"model": ready.model, "data": ready.data, "defenses": [defense], "training": {"epochs": epochs}}

    def ended(job: str) -> tuple[RetrainReport, bytes]:
        info = stack.ended(job, 300)
        assert info.state == "succeeded", info.reason
        return stack.client.jobs.retrained(job), stack.client.jobs.artifact(job, "model.safetensors", tmp_path / job).read_bytes()

    whole, weights = ended(stack.submit(**given))
    job = stack.submit(**given)
    states = stack.data / "work" / job / "1" / "shards" / kind
    eventually(lambda: list(states.glob("*.state")), 120, "a state to go on from")
    os.kill(stack.runner(), signal.SIGKILL)
    cut, same = ended(job)
    assert stack.info(job).attempt == 2
    assert 0 < cut.best.resumed < cut.best.epochs, "nothing was taken over, or nothing was left to do"
    assert same == weights
    assert cut.best.after.threats[0].worst == whole.best.after.threats[0].worst
    assert [epoch.model_dump() for epoch in cut.best.curve] == [epoch.model_dump() for epoch in whole.best.curve]
    lineage = stack.client.models.get(stack.info(job).models[0]).lineage
    assert lineage is not None
    assert lineage.surrogates == ((Source(id=rival.id, sha256=rival.sha256),) if kind == "ensemble" else ())
