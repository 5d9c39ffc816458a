"""The robustness report. It holds counts; rates and intervals are computed from them."""

from datetime import datetime
from math import sqrt
from statistics import NormalDist
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from sparring.contract.attacks import AttackSpec, Knowledge
from sparring.contract.base import Frozen
from sparring.contract.corruptions import SEVERITIES, CorruptionName
from sparring.contract.early import Stopped
from sparring.contract.fields import Sha256
from sparring.contract.jobs import AttackJob
from sparring.contract.specs import DataFormat, DataSpec, ModelFormat, ModelSpec
from sparring.contract.threat import Norm, Threat

Count = Annotated[int, Field(ge=0)]
ROW_COLUMNS = (
    *("row", "label", "clean_prediction", "norm", "eps", "broken", "broken_by", "prediction", "distance", "queries"),
    *("white", "gray", "black"),
)
"""Columns of rows.csv and rows.parquet, in their order."""


class Score(Frozen):
    """`count` rows of `total` are right."""

    count: Count
    total: Count

    @model_validator(mode="after")
    def _ordered(self) -> "Score":
        if self.count > self.total:
            raise ValueError(f"count {self.count} exceeds total {self.total}")
        return self

    @property
    def rate(self) -> float:
        """Fraction in [0, 1]; NaN of nothing."""
        return self.count / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the rate, for rows drawn independently; (0, 1) of nothing."""
        return self.interval_at(0.95)

    def interval_at(self, confidence: float) -> tuple[float, float]:
        """Wilson's score interval of the rate (Wilson 1927), for rows drawn independently; (0, 1) of nothing."""
        if not self.total:
            return 0.0, 1.0
        n, z = self.total, NormalDist().inv_cdf((1 + confidence) / 2)
        centre = (self.rate + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * sqrt(self.rate * (1 - self.rate) / n + z * z / (4 * n * n))
        return max(0.0, min(centre - half, self.rate)), min(1.0, max(centre + half, self.rate))


class Finding(Frozen):
    """Something the reader must know before believing a number."""

    code: str
    """Stable: `gradient_absent`, `not_deterministic`, `probabilities`, `chance_accuracy`, `rows_interact`, `nan_weights` …"""
    message: str
    hint: str = ""
    evidence: dict[str, JsonValue] = Field(default_factory=dict)


CheckState = Literal["passed", "flagged", "left_out", "not_applicable"]


class Check(Frozen):
    """One look at whether a number may be believed. What passed showed no sign; that proves nothing."""

    code: str
    """Stable: `gradient_absent`, `weaker_attacker_wins`, `not_converged` …; a warning of the same code tells the same."""
    state: CheckState
    level: Literal["suspect", "invalid"] | None = None
    """What a flag makes of the number; absent unless flagged."""
    message: str
    """What was seen; or why nothing was looked at."""
    hint: str = ""
    """What a flag means, and what to do."""
    evidence: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _flagged_at_a_level(self) -> "Check":
        if (self.state == "flagged") != (self.level is not None):
            raise ValueError("a check has a level if, and only if, it is flagged")
        return self


class Trust(Frozen):
    """How far the number of one threat may be believed, with the evidence."""

    level: Literal["reliable", "unchecked", "suspect", "invalid"] = "unchecked"
    """`reliable`: every check ran and none found a sign. `unchecked`: none found a sign, but some were left out."""
    evidence: tuple[Finding, ...] = ()
    """What speaks against the number."""
    checks: tuple[Check, ...] = ()
    """All that were thought of, in their order; none where nothing was checked."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Codes of the checks that were left out."""
        return tuple(check.code for check in self.checks if check.state == "left_out")


class SurrogateResult(Frozen):
    """A model that an attacker trained, or brought along, beside the target."""

    name: str
    """Its architecture, `substitute`, or the uploaded model's reference."""
    rows: Count
    """Rows it was trained on to begin with; 0 for an uploaded model."""
    queries: Count = 0
    """What the target was asked for while it was trained, once for the whole job."""
    accuracy: Score | None = None
    """On evaluated rows that have labels, the first 2,048 at most."""
    agreement: Score
    """Of these rows, those on which it says what the target says."""


class UniversalResult(Frozen):
    """The one perturbation that was fitted before the attack, and added to every row."""

    rows: Count
    """Rows it was fitted on, none of which was attacked."""
    queries: Count
    """What the target was asked while it was fitted, once for the whole job."""
    fooled: Score
    """Of the rows it was fitted on, those whose predicted class it changes."""


class QueryPoint(Frozen):
    """Rows that an attack had broken when it had asked so often of each."""

    queries: Count
    broken: Count


class AttackResult(Frozen):
    """What one attack did under one threat."""

    name: str
    """Unique among the attacks of the job: `pgd`, `pgd-2`; rows.csv's `broken_by` says it."""
    attack: AttackSpec
    robust: Score
    """Rows still right after this attack, of all rows; in a cascade, after it and all before it."""
    entered: Count
    """Rows it was tried on: those right at the start, less those carried, in a cascade less those broken before."""
    broken: Count
    """Of the rows it was tried on."""
    carried: Count = 0
    """Rows it had broken at a smaller eps of the same job; they are broken here by the same x', and were not tried again."""
    first: Count
    """Rows that no attack before it in the list had broken: its marginal gain."""
    queries: Count
    """Model evaluations of one input, all rows together."""
    forwards: Count
    """Rows passed forward through the model."""
    backwards: Count
    """Rows passed backward through the model."""
    seconds: float
    """Process seconds spent, summed over processes."""
    surrogates: tuple[SurrogateResult, ...] = ()
    """The models whose adversarial examples were shown to the target."""
    universal: UniversalResult | None = None
    """For UAP: what came of the fitting."""
    smoothness: float | None = None
    """For VAT: mean KL(p(x) || p(x')) in nats over the rows tried; the smaller, the smoother the model around its data."""
    median_queries: Count | None = None
    """Half of the rows that it was tried on and broke took so many queries at most, the judge's looks included.

    Absent where it broke none, and where it was not stopped at its first success.
    """
    p90_queries: Count | None = None
    """90 % of them took so many at most."""
    by_queries: tuple[QueryPoint, ...] = ()
    """How many of them it had broken within so many queries, at up to 24 numbers that occur."""
    distances: tuple[Count, ...] = ()
    """The rows of `first` by ||x' - x|| in the threat's norm: so many in each of as many equal parts of [0, eps], from below.

    A part holds its upper end. None in reports of versions that did not tell.
    """


class ClassScore(Frozen):
    """One class of the labels."""

    label: Count
    clean: Score
    robust: Score
    """Against the worst case of the threat this stands under."""


class Move(Frozen):
    """Rows of one class that the model takes for one other class."""

    label: Count
    prediction: Annotated[int, Field(ge=-1)]
    """-1, which is no class, where the model answers NaN or infinity."""
    clean: Count
    """Rows that it takes so as they are."""
    worst: Count
    """Rows that it takes so in the worst case of the threat this stands under."""


class LevelResult(Frozen):
    """All attacks that know as much together: the weights (white), the training data (gray), only answers (black)."""

    knowledge: Knowledge
    robust: Score
    """Rows right that none of these attacks broke, of all rows; in a cascade, of those it was tried on."""
    alone: Count
    """Rows that they broke and no attack of another level did: what they add to the worst case."""


class ThreatResult(Frozen):
    """One threat: each attack, and the worst case over all of them, row by row."""

    threat: Threat
    each: tuple[AttackResult, ...]
    worst: Score
    """Rows that no attack broke."""
    levels: tuple[LevelResult, ...] = ()
    """By what the attacker knows, the most first; only levels of which an attack was run."""
    proved: Count | None = None
    """Of these, rows that a bound proved robust, so that they were not attacked; absent where the job did not ask for it."""
    certified: Count | None = None
    """Rows that are certified to be right all over the ball, and were attacked all the same; absent where the job did not ask for it."""
    classes: tuple[ClassScore, ...]
    moves: tuple[Move, ...] = ()
    """Pairs of classes that were confused, at most 400: those that the attacks added most rows to come first.

    None in reports of versions that did not tell.
    """
    median_distance: float | None = None
    """Median of ||x' - x|| over rows broken by an attack, in the threat's norm; absent if there is none."""
    trust: Trust = Trust()


class MinimalResult(Frozen):
    """What an attack found that looks for the smallest change: the whole curve from one run."""

    name: str
    """The attack's name among those of the job."""
    norm: Norm
    targeted: bool = False
    found: Score
    """Rows, of those right at the start, for which some x' was found at all."""
    median_distance: float | None = None
    """Median over the rows right at the start, in units of the data; absent where fewer than half were broken."""
    curve: tuple["CurvePoint", ...]
    """Rows right and not broken within eps, of all rows, at up to 33 distances that occur."""


class CurvePoint(Frozen):
    """Accuracy against eps: the worst case at this radius. eps 0 is the clean accuracy."""

    norm: Norm
    eps: float
    robust: Score
    targeted: bool = False


class CorruptionResult(Frozen):
    """Accuracy under one common corruption."""

    name: CorruptionName
    severities: Annotated[tuple[Score, ...], Field(min_length=SEVERITIES, max_length=SEVERITIES)]
    """Rows right at severity 1, 2 …, of all rows."""

    @property
    def mean(self) -> Score:
        """All severities together; they count the same rows, so its rate is the mean of theirs."""
        return Score(count=sum(score.count for score in self.severities), total=sum(score.total for score in self.severities))


class ModelFacts(Frozen):
    """The model that was measured."""

    id: str = ""
    name: str
    sha256: Sha256
    format: ModelFormat
    spec: ModelSpec
    parameters: Count
    input_shape: tuple[int, ...]
    """Shape of one row as the data holds it."""
    classes: Count


class DataFacts(Frozen):
    """The data it was measured on."""

    id: str = ""
    name: str
    sha256: Sha256
    format: DataFormat
    spec: DataSpec
    """As resolved: defaults filled in."""
    shape: tuple[int, ...]
    """Shape of the whole dataset, rows first."""
    dtype: str
    labelled: bool
    """Without labels the model's own predictions on the clean rows serve as labels."""


class Cost(Frozen):
    """What the evaluation took."""

    queries: Count
    forwards: Count
    backwards: Count
    wall_seconds: float
    attack_seconds: float
    """Process seconds in attacks, summed over processes."""
    asked: Count | None = None
    """Rows put to the endpoint, in all attempts of the job; absent where the model is a file."""
    sent: Count | None = None
    """Requests sent to it, repeated ones included."""
    check_forwards: Count = 0
    """Rows passed forward in checks of trust, beside those above."""
    check_backwards: Count = 0
    check_seconds: float = 0.0
    """Process seconds in them, summed over processes."""


class Provenance(Frozen):
    """All that is needed to tell the run again."""

    sparring: str
    python: str
    torch: str
    platform: str
    device: str
    """`cpu`, or the GPU by name."""
    processor: str
    processes: Count
    threads: Count
    """Threads of each process."""
    tile: Count
    """Rows of a full pass."""
    granule: Count = 0
    """Shorter passes are padded to a multiple of so many rows; as many as the tile unless results were bit-equal (probed on this model).

    0 in reports of versions that did not tell.
    """
    rows_independent: bool
    """A row's results were bit-equal whatever its neighbours, slot and order (probed on this model)."""
    environment: dict[str, str]
    """Variables that change arithmetic, such as MKL_CBWR."""
    suite: str = ""
    """Version of the job's suite, such as `quick@1`; empty where the job listed its attacks."""
    search: tuple[str, ...]
    """What was done to the copy that is searched, such as `batch norm folded`; the judge is never changed."""
    judge: str
    """What decided each success."""
    proof: str = ""
    """By what rows were proved robust, where the job asked for it."""
    resumed: Count = 0
    """Shards taken over from an attempt that was cut off."""
    started: datetime
    finished: datetime


class Report(Frozen):
    """What came of a job: counts, with all that is needed to believe and to repeat them."""

    version: Literal[1] = 1
    job: AttackJob
    model: ModelFacts
    data: DataFacts
    clean: Score
    threats: tuple[ThreatResult, ...]
    curve: tuple[CurvePoint, ...]
    minimal: tuple[MinimalResult, ...] = ()
    corruptions: tuple[CorruptionResult, ...] = ()
    stopped: Stopped | None = None
    """How it ended, where it was to end early: all figures are of the rows evaluated."""
    warnings: tuple[Finding, ...] = ()
    cost: Cost
    provenance: Provenance

    @property
    def corrupted(self) -> Score:
        """All corruptions and severities together; its rate is the mean corruption accuracy. Of nothing without corruptions."""
        means = [result.mean for result in self.corruptions]
        return Score(count=sum(mean.count for mean in means), total=sum(mean.total for mean in means))
