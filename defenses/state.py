"""The whole state of a training as one value, and as one file: safetensors with what is not a tensor as JSON in its header."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_HEADER = "sparring.training"


@dataclass(frozen=True)
class State:
    """All that a training must know to go on as if it had never been interrupted."""

    tensors: dict[str, Tensor]
    """By name: `model/…`, `optimizer/…`, `average/…`, `carry/…`. Copies, on the CPU."""
    facts: dict[str, Any]
    """JSON: how far the training has come, and what it is a training of."""

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors under `name/`."""
        return {key.removeprefix(f"{name}/"): tensor for key, tensor in self.tensors.items() if key.startswith(f"{name}/")}

    @property
    def finite(self) -> bool:
        """No tensor of the model holds NaN or infinity."""
        return all(bool(torch.isfinite(tensor).all()) for tensor in self.part("model").values() if tensor.is_floating_point())

    def save(self, path: Path) -> None:
        """Write to a file."""
        save_file(self.tensors, path, metadata={_HEADER: json.dumps(self.facts)})

    @staticmethod
    def load(path: Path) -> "State":
        """Read what `save` wrote.

        Raises:
            ValueError: the file is no saved state.
        """
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads((file.metadata() or {})[_HEADER])
                return State({name: file.get_tensor(name) for name in file.keys()}, facts)  # noqa: SIM118  # it is no mapping
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"{path} holds no state of a training: {str(error)[:200]}") from error


def copied(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU in plain memory order, under `name/`."""
    return {f"{name}/{key}": tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format) for key, tensor in tensors.items()}


def of_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers of each weight, as `number.name`."""
    remembered = optimizer.state_dict()["state"]
    return {f"{at}.{name}": each for at, own in remembered.items() for name, each in own.items() if isinstance(each, Tensor)}


def to_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimiser back what `of_optimizer` took, each tensor in its weight's order of memory: a fused step relies on that."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        at, _, name = key.partition(".")
        like = weights[int(at)]
        fitted = torch.empty_like(like, requires_grad=False) if tensor.shape == like.shape else torch.empty_like(tensor)
        state.setdefault(int(at), {})[name] = fitted.copy_(tensor)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
