"""What a service keeps of gates: their verdicts, and the baselines that drops are measured against."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from sparring.contract.base import Frozen
from sparring.contract.fields import Sha256
from sparring.contract.gate import Policy
from sparring.contract.quantity import Listed, NotEmpty
from sparring.contract.report import Score
from sparring.contract.resources import Name
from sparring.contract.verdict import Baseline, BaselineKey, ExitCode, Verdict


class GateRun(Frozen):
    """A gate that was run."""

    name: Name
    """What baselines of the model are kept under."""
    policy: Policy
    verdict: Verdict


class GateInfo(GateRun):
    """A gate that was run, as it is kept."""

    id: str
    created: datetime


class GateLine(Frozen):
    """A gate that was run, in a list of them."""

    id: str
    name: str
    exit_code: ExitCode
    job: str
    """Id of the evaluation; empty where there was none."""
    created: datetime


class Accepting(Frozen):
    """Baselines that are to take the places of those of the same keys."""

    baselines: Annotated[tuple[Baseline, ...], Field(max_length=101), NotEmpty(), Listed]


class BaselineInfo(Frozen):
    """A baseline, as it is kept."""

    id: str
    """Stays the same when another one of the same key is accepted."""
    created: datetime
    """When it was accepted last."""
    baseline: Baseline


class BaselineLine(Frozen):
    """A baseline, in a list of them: without its rows."""

    id: str
    created: datetime
    """When it was accepted last."""
    key: BaselineKey
    sha256: Sha256
    """Of the model."""
    score: Score
    """Rows that were right, or stood."""
