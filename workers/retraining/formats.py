"""A trained model as files: in the form in which it was uploaded, and in the forms that every model is handed back in."""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from sparring.contract.report import Finding
from sparring.contract.runner import TrainingOrder
from sparring.contract.specs import ModelFormat
from sparring.workers.errors import Refused
from sparring.workers.models import load_model
from sparring.workers.pt2.load import load_pt2
from sparring.workers.pt2.strip import strip
from sparring.workers.retraining.trainee import Weights

SUFFIX: dict[ModelFormat, str] = {"pt2": ".pt2", "safetensors": ".safetensors", "onnx": ".onnx", "state_dict": ".pt"}
_ROWS = 3
"""On which the exported graph is compared with what it was exported from."""
_TOLERANCE = 1e-4


def write(order: TrainingOrder, weights: Weights, stem: Path, row: tuple[int, ...]) -> tuple[dict[str, str], tuple[Finding, ...]]:
    """Write every form of a model beside `stem`: names of the files by form, and what is to be said of a form that could not be made."""
    form = order.model.format
    files = {"safetensors": _safetensors(weights, stem)}
    if form == "state_dict":
        files[form] = _state_dict(weights, stem)
    elif form == "onnx":
        files[form] = _onnx(Path(order.model_path), weights, stem)
    try:
        files["pt2"] = _pt2(_module(order, weights), stem, row)
    except Exception as error:  # torch.export raises anything, and runs the graph
        if form == "pt2":
            raise
        reason = error.reason.message if isinstance(error, Refused) else f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        message = f"The trained model could not be written as .pt2: {reason}."
        return files, (Finding(code="pt2_absent", message=message, hint="Its other forms hold the same weights."),)
    return files, ()


def _module(order: TrainingOrder, weights: Weights) -> nn.Module:
    """The uploaded model with other weights, in evaluation mode."""
    path, form = Path(order.model_path), order.model.format
    loaded = load_model(path, form, order.model.spec)
    if loaded.graph is not None:
        from sparring.workers.retraining.onnx_weights import trainable_graph  # here, because the packages are an extra

        module, names = trainable_graph(loaded.graph)
        module.load_state_dict({own: weights[name] for own, name in names.items()})
        return module.eval()
    loaded.module.load_state_dict(weights)
    return loaded.module


def _path(stem: Path, form: ModelFormat) -> Path:
    return stem.with_name(stem.name + SUFFIX[form])


def _safetensors(weights: Weights, stem: Path) -> str:
    path = _path(stem, "safetensors")
    save_file(weights, path)
    return path.name


def _state_dict(weights: Weights, stem: Path) -> str:
    path = _path(stem, "state_dict")
    torch.save(weights, path)
    return path.name


def _onnx(source: Path, weights: Weights, stem: Path) -> str:
    from onnx import ModelProto

    from sparring.workers.retraining.onnx_weights import replaced

    path = _path(stem, "onnx")
    path.write_bytes(replaced(ModelProto.FromString(source.read_bytes()), weights).SerializeToString())
    return path.name


def _pt2(module: nn.Module, stem: Path, row: tuple[int, ...]) -> str:
    """Exported afresh: of the archive that was uploaded nothing is handed on but what its graph says."""
    path = _path(stem, "pt2")
    dtype = next(weight.dtype for weight in module.parameters())
    x = torch.rand((_ROWS, *row), generator=torch.Generator().manual_seed(0)).to(dtype)
    batch = torch.export.Dim("batch", min=1, max=4096)
    with tempfile.TemporaryDirectory(dir=stem.parent) as folder:
        exported = Path(folder) / "exported.pt2"
        program = torch.export.export(module, (x,), dynamic_shapes=({0: batch},), strict=False)
        torch.export.save(program, exported)
        strip(exported, path)
    with torch.no_grad():
        expected, found = module(x), load_pt2(path).module(x)
    if float((found - expected).abs().max()) > _TOLERANCE * float(expected.abs().max().clamp(min=1)):
        raise RuntimeError("the exported graph answers differently")
    return path.name
