import sys
from hashlib import sha256

import pytest
import torch
from safetensors.torch import save_file

from sparring.contract.specs import DataSpec, ModelSpec
from sparring.storage.sniff import sniff_model
from sparring.workers.datasets import check, open_dataset, unpack
from sparring.workers.errors import Refused
from sparring.workers.models import load_model, set_mode


@pytest.mark.parametrize(
    ("file", "arch", "right"),
    [
        pytest.param("advertorch_mnist_lenet5_clntrained.pt", "lenet5", 9889, marks=pytest.mark.slow),
        ("convex_adversarial_mnist_eps0.1.pth", "cnn", 9820),
    ],
)
def test_published_models_reach_their_published_accuracy(file, arch, right, realdata, mnist_npz, tmp_path):
    path = realdata / "models" / file
    format = sniff_model(path.read_bytes()[:512], path)
    loaded = load_model(path, format, ModelSpec(arch=arch))
    assert (format, loaded.input_shape, loaded.classes, loaded.findings) == ("state_dict", (1, 28, 28), 10, ())
    data = open_dataset(unpack(mnist_npz, tmp_path, sha256(mnist_npz.read_bytes()).hexdigest()), DataSpec())
    check(data, loaded.classes)
    with torch.no_grad():
        predictions = loaded.module(data.rows(range(len(data)))).argmax(1)
    assert int((predictions.numpy() == data.labels).sum()) == right


def test_published_safetensors_load(realdata):
    path = realdata / "models" / "tinygrad_mnist_mlp.safetensors"
    loaded = load_model(path, sniff_model(path.read_bytes()[:512], path), ModelSpec(arch="mlp"))
    assert (loaded.parameters, loaded.classes, loaded.input_shape) == (784 * 128 + 128 * 10, 10, None)


def _save(path, **state):
    torch.save(state, path)
    return path


def _mlp(**other):
    return {"0.weight": torch.randn(5, 8), "0.bias": torch.randn(5), "2.weight": torch.randn(3, 5), "2.bias": torch.randn(3), **other}


def test_bare_weights_need_an_architecture(tmp_path):
    with pytest.raises(Refused, match="mlp, lenet5, cnn, resnet18") as refused:
        load_model(_save(tmp_path / "w.pt", **_mlp()), "state_dict", ModelSpec())
    assert refused.value.reason.detail == "arch_missing"


def test_weights_that_diverged_are_reported(tmp_path):
    loaded = load_model(_save(tmp_path / "w.pt", **_mlp(**{"2.bias": torch.full((3,), torch.nan)})), "state_dict", ModelSpec(arch="mlp"))
    assert [finding.code for finding in loaded.findings] == ["nan_weights"]


def test_weights_keep_their_precision(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({name: tensor.double() for name, tensor in _mlp().items()}, path)
    loaded = load_model(path, "safetensors", ModelSpec(arch="mlp"))
    assert loaded.dtype == torch.float64
    assert loaded.module(torch.rand(2, 2, 4, dtype=torch.float64)).dtype == torch.float64


def test_weights_of_two_precisions_are_refused(tmp_path):
    with pytest.raises(Refused, match="not all of one floating-point type"):
        load_model(_save(tmp_path / "w.pt", **_mlp(**{"2.bias": torch.zeros(3).half()})), "state_dict", ModelSpec(arch="mlp"))


def test_one_output_is_no_classifier(tmp_path):
    state = _mlp(**{"2.weight": torch.randn(1, 5), "2.bias": torch.randn(1)})
    with pytest.raises(Refused, match=r"shape \(1, 1\)") as refused:
        load_model(_save(tmp_path / "w.pt", **state), "state_dict", ModelSpec(arch="mlp"))
    assert refused.value.reason.detail == "shape_mismatch"


def test_a_worker_without_the_packages_for_onnx_says_so(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "sparring.workers.onnx_judge", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(Refused, match="onnxruntime is not installed") as refused:
        load_model(tmp_path / "m.onnx", "onnx", ModelSpec())
    assert refused.value.reason.code == "unsupported"
    assert "sparring[onnx]" in refused.value.reason.hint


def test_plain_modules_switch_too(tmp_path):
    module = load_model(_save(tmp_path / "w.pt", **_mlp()), "state_dict", ModelSpec(arch="mlp")).module
    assert not module.training
    set_mode(module, True)
    assert module.training
