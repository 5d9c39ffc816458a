"""What is measured, and with which tools: one list for the benchmark and for the comparison of accuracies."""

from typing import Any, NamedTuple

from models import SUBJECTS

OURS = {"ours-exact": "exact", "ours-fast": "fast"}
"""Precision of the job by tool."""
MODULES = {"torchattacks": "with_torchattacks", "foolbox": "with_foolbox", "art": "with_art", "autoattack": "with_autoattack"}
"""Peers, and the module of `tools` that runs each; AutoAttack is assembled from torchattacks' parts."""
FLOORS = ("floor", "floor-default")
"""The same passes with our allocator settings, and with the C library's own."""
TOOLS = (*OURS, *MODULES)

_PGD = {"kind": "pgd", "steps": 20}


class Workload(NamedTuple):
    """An attack, in our words and those of the peers."""

    about: str
    job: dict[str, Any]
    """Ours: a job without model, data, threat, rows and seed."""
    steps: int
    """Passes of the floor; a random search's are forward only."""
    peers: tuple[str, ...]
    rows: dict[str, int]
    """Rows by subject; a subject that is not named is not run unless asked for, and then on `few` rows."""
    few: int = 64
    gradient: bool = True
    """The floor's passes go backward too."""
    far: float | None = None
    """For attacks that look for the smallest change: an eps in l2 that holds every row, so that the distances count."""


def _square(queries: int) -> Workload:
    job = {"kind": "evaluate", "attacks": [{"kind": "square", "queries": queries}]}
    return Workload(f"Square, {queries} queries", job, queries, ("torchattacks",), {"fashion": 128, "mnist": 64}, gradient=False)


def _walk(title: str, kind: str, queries: int = 2000) -> Workload:
    job = {"kind": "evaluate", "attacks": [{"kind": kind, "queries": queries}]}
    about = f"{title} in l2, {queries} queries: how near does it come?"
    return Workload(about, job, queries, ("foolbox", "art"), {"fashion": 64}, gradient=False, far=100.0)


_LIBRARIES = ("torchattacks", "foolbox", "art")

WORKLOADS = {
    "pgd20-verdict": Workload(
        "PGD, 20 steps: which rows break?",
        {"kind": "evaluate", "attacks": [_PGD]},
        20,
        _LIBRARIES,
        {"fashion": 1000, "mnist": 1000, "resnet18": 64},
    ),
    "pgd20-export": Workload(
        "PGD, 20 steps: all of them for every row, for the examples",
        {"kind": "craft", "attack": _PGD},
        20,
        _LIBRARIES,
        {"fashion": 1000, "mnist": 1000, "resnet18": 64},
    ),
    "apgd100": Workload(
        "APGD on cross-entropy, 100 steps",
        {"kind": "evaluate", "attacks": [{"kind": "apgd", "steps": 100}]},
        100,
        ("torchattacks",),
        {"fashion": 512, "mnist": 512},
    ),
    "square-1000": _square(1000),
    "square-5000": _square(5000),
    "hopskipjump": _walk("HopSkipJump", "hopskipjump"),
    "boundary": _walk("Boundary attack", "boundary"),
    "standard": Workload(
        "suite `standard` against AutoAttack `standard`; the floor is 100 steps",
        {"kind": "evaluate", "suite": "standard"},
        100,
        ("autoattack",),
        {"fashion": 128, "mnist": 64},
    ),
}


def rows_of(workload: str, subject: str, asked: int | None) -> int:
    """How many rows are attacked."""
    return asked or WORKLOADS[workload].rows.get(subject, WORKLOADS[workload].few)


def plan(workloads: list[str] | None, subjects: list[str] | None) -> list[tuple[str, str]]:
    """(subject, workload) pairs: all that are meant to be, or every combination of what is named."""
    return [
        (subject, name)
        for subject in subjects or SUBJECTS
        for name in workloads or WORKLOADS
        if subject in WORKLOADS[name].rows or (subjects and workloads)
    ]
