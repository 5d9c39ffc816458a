"""A .pt2 file as a module: read, built, and put in evaluation mode. torch.export.load is never called: it unpickles."""

from pathlib import Path
from typing import NamedTuple

import torch

from sparring.contract.report import Finding
from sparring.workers.errors import Refused
from sparring.workers.pt2.archive import Archive
from sparring.workers.pt2.batch import free_batch
from sparring.workers.pt2.graph import build
from sparring.workers.pt2.mode import SwitchedGraph, mark_modes
from sparring.workers.pt2.operators import OPERATORS, RANDOM
from sparring.workers.pt2.schema import MAJOR, Program, parse
from sparring.workers.pt2.shapes import check_shapes
from sparring.workers.pt2.tensors import read_tensors

MODEL = "models/model.json"


class Pt2(NamedTuple):
    """What a .pt2 holds."""

    module: SwitchedGraph
    """In evaluation mode, on the CPU."""
    row: tuple[int, ...]
    """Shape of one input row at export."""
    fixed: bool
    """Every size of `row` is part of the graph (none is symbolic)."""
    dtype: torch.dtype
    """Of the input."""
    findings: tuple[Finding, ...]


def load_pt2(path: Path) -> Pt2:
    """Read a .pt2. Raises Refused saying what is wrong with it; nothing in the file is executed."""
    with Archive(path) as archive:
        program = parse(Program, archive.json(MODEL), MODEL)
        if program.schema_version.major != MAJOR:
            message = f"the graph is written in version {program.schema_version.major} of its schema; version {MAJOR} is read"
            raise Refused("unsupported", message, hint="Export it again with torch 2.9 or later.", detail="schema_version")
        names = program.graph_module.signature.names
        module, entry = build(program, read_tensors(archive, "weights", names), read_tensors(archive, "constants", names))
    sizes = [size.known for size in entry.sizes]
    if len(sizes) < 2 or any(not size for size in sizes):
        hint = "The input must be a tensor of rows: (batch, features …)."
        raise Refused("bad_model", f"the model takes an input of shape {sizes}", hint=hint, detail="shape_mismatch")
    row = tuple(size for size in sizes[1:] if size)
    trained = mark_modes(module.graph)
    module.eval()
    if not entry.torch_dtype.is_floating_point:
        hint = "Attacks move real numbers: export a model that takes floating-point rows."
        raise Refused("unsupported", f"the model takes an input of type {entry.torch_dtype}", hint=hint, detail="input_dtype")
    if entry.sizes[0].as_int is not None:
        free_batch(module, entry.sizes[0].as_int, row, entry.torch_dtype)
    check_shapes(module, row, entry.torch_dtype)
    fixed = all(size.as_int is not None for size in entry.sizes[1:])
    return Pt2(module, row, fixed, entry.torch_dtype, tuple(_findings(module, trained)))


def _findings(module: SwitchedGraph, trained: bool) -> list[Finding]:
    findings = []
    if trained:
        message = "the model was exported in training mode; it is measured in evaluation mode"
        findings.append(Finding(code="exported_in_training", message=message, hint="Call model.eval() before exporting."))
    drawing = {OPERATORS[name] for name in RANDOM}
    nodes = [node.name for node in module.graph.nodes if node.target in drawing and _draws(node)]
    if nodes:
        message = f"the model draws random numbers in evaluation mode, at {', '.join(nodes[:5])}"
        hint = "Its answers vary from pass to pass; a single pass proves little."
        findings.append(Finding(code="stochastic_ops", message=message, hint=hint, evidence={"nodes": [str(name) for name in nodes[:50]]}))
    return findings


def _draws(node: torch.fx.Node) -> bool:
    """Dropout and rrelu draw only when their flag is on."""
    flags = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]  # every target here is an OpOverload
    for flag in ("train", "training"):
        if flag in flags and len(node.args) > flags.index(flag):
            return bool(node.args[flags.index(flag)])
    return "training" not in flags
