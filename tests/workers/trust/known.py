"""What preflight has found of a small model."""

from typing import Any

from sparring.contract.specs import DataSpec
from sparring.workers.bench import Facts


def facts(**changes: Any) -> Facts:
    """Of ten classes and a hundred rows, with a gradient."""
    made = Facts(
        rows=100,
        classes=10,
        shape=(100, 1, 8, 8),
        dtype="uint8",
        labelled=True,
        spec=DataSpec(),
        parameters=1,
        probabilities=False,
        independent=True,
        search=(),
        device="cpu",
        findings=(),
    )
    return made._replace(**changes)
