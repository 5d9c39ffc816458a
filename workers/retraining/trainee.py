"""An uploaded model made ready to be trained: in float32, every weight free, in the mode that is asked for."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparring.contract.runner import TrainingOrder
from sparring.workers.bench import Facts
from sparring.workers.datasets import Dataset
from sparring.workers.errors import Refused
from sparring.workers.models import Loaded, load_model
from sparring.workers.prepare import Prepared
from sparring.workers.retraining.afresh import afresh

Weights = dict[str, Tensor]
"""By their names in the uploaded file."""


class Mixed(nn.Module):
    """A model whose passes are in bfloat16 where that is safe; its weights, and what it answers, are in float32."""

    def __init__(self, model: nn.Module) -> None:
        """Share the weights of `model`."""
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) float32."""
        with torch.autocast(x.device.type, torch.bfloat16):
            logits: Tensor = self.model(x)
        return logits.float()


class Trainee(NamedTuple):
    """A model to be trained."""

    model: nn.Module
    """(B, *rows) float32 -> logits (B, K)."""
    module: nn.Module
    """What of it was uploaded."""
    dtypes: dict[str, torch.dtype]
    """What its weights are stored in."""
    names: dict[str, str]
    """The names of weights in the file, where they are not those in the module."""
    row: tuple[int, ...]
    """Shape of what it reads for a row."""

    @torch.no_grad()
    def weights(self) -> Weights:
        """As they are now, on the CPU, in the types in which they were uploaded."""
        state = self.module.state_dict()
        return {self.names.get(name, name): tensor.to("cpu", self.dtypes[name], copy=True).contiguous() for name, tensor in state.items()}


def trainee(order: TrainingOrder, data: Dataset, facts: Facts, device: torch.device) -> Trainee:
    """The model of a job, before its training.

    Raises:
        Refused: it cannot be trained, or not from fresh weights.
    """
    job, spec = order.job, order.model.spec
    loaded = load_model(Path(order.model_path), order.model.format, spec)
    module, names = loaded.module, dict[str, str]()
    if loaded.graph is not None:
        from sparring.workers.retraining.onnx_weights import trainable  # here, because the packages are an extra

        module, names = trainable(loaded, data, spec)
    if facts.access != "gradient":
        hint = "Export the model as .pt2 with `sparring export`."
        raise Refused(
            "unsupported", "the model answers scores alone: it has no gradient to train by", hint=hint, detail="score_access_only"
        )
    dtypes = {name: tensor.dtype for name, tensor in module.state_dict().items()}
    if job.scratch:
        afresh(module, job.training.seed)
    ready = _prepared(loaded, module.float(), order, data, facts).to(device)
    return Trainee(Mixed(ready) if job.precision == "fast" else ready, module, dtypes, names, ready.shape)


def _prepared(loaded: Loaded, module: nn.Module, order: TrainingOrder, data: Dataset, facts: Facts) -> Prepared:
    known = loaded._replace(module=module, dtype=torch.float32)
    model = Prepared(known, order.model.spec, data.row_shape, data.spec.layout)
    model.probabilities = facts.probabilities
    try:
        with torch.no_grad():
            model.eval()(data.rows(torch.arange(2) % len(data)))
    except RuntimeError as error:
        message = f"the model cannot be trained in float32: {str(error).splitlines()[0]}"
        raise Refused("unsupported", message, hint="Upload it in float32.", detail="dtype") from error
    return model
