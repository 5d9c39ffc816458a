"""What a worker will see in a .pt2, found out before it is uploaded."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch

from sparring.contract.report import Finding
from sparring.contract.specs import ModelSpec
from sparring.workers.models import load_model
from sparring.workers.pt2.mode import SwitchedGraph


class Summary(NamedTuple):
    """A .pt2 in a few words."""

    module: torch.nn.Module
    sha256: str
    operators: tuple[str, ...]
    """Distinct operators its graph calls."""
    parameters: int
    input_shape: tuple[int, ...] | None
    classes: int
    findings: tuple[Finding, ...]


def check(path: Path) -> Summary:
    """Load a .pt2 as a worker would. Raises Refused as load_model does."""
    loaded = load_model(path, "pt2", ModelSpec())
    operators: set[str] = set()
    if isinstance(loaded.module, SwitchedGraph):
        operators = {str(node.target) for node in loaded.module.graph.nodes if isinstance(node.target, torch._ops.OpOverload)}
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Summary(loaded.module, digest, tuple(sorted(operators)), loaded.parameters, loaded.input_shape, loaded.classes, loaded.findings)
