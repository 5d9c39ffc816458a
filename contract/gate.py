"""The policy of a gate: what is evaluated, what must hold of it, and what is forgiven until when."""

from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, ValidationError, model_validator

from sparring.contract.attacks import AttackSpec, Knowledge, SuiteName
from sparring.contract.base import Frozen
from sparring.contract.early import Early
from sparring.contract.endpoints import Budget
from sparring.contract.fields import Ident, Rows, Samples, Seconds, Seed, Share, Where
from sparring.contract.jobs import Evaluate
from sparring.contract.quantity import Listed, NotBool, NotEmpty
from sparring.contract.refs import JobRef, Ref
from sparring.contract.resources import Name
from sparring.contract.specs import DataSpec, ModelReading
from sparring.contract.threat import Threat

Branch = Annotated[str, Field(pattern=r"^[\w./+\-]{1,200}$")]
File = Annotated[str, Field(min_length=1, max_length=1000)]
"""A path, relative to the folder of the policy."""
Words = Annotated[str, Field(min_length=1, max_length=500)]
TrustLevel = Literal["suspect", "unchecked", "reliable"]

_ANY = "0" * 64


class ModelSource(ModelReading):
    """The model: a file, or what was uploaded already."""

    path: File | None = None
    ref: Ref | None = None
    """Id or sha256 of an upload."""
    name: Name | None = None
    """What its baselines are kept under, whatever its file is called; the file's name unless given."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        _check_place(self, set(ModelReading.model_fields))
        return self


class DataSource(DataSpec):
    """The data: a file, or what was uploaded already."""

    path: File | None = None
    ref: Ref | None = None
    """Id or sha256 of an upload."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        _check_place(self, set(DataSpec.model_fields))
        return self


def _check_place(source: ModelSource | DataSource, declared: set[str]) -> None:
    if (source.path is None) == (source.ref is None):
        raise ValueError("give either path (a file) or ref (an upload)")
    if source.ref and (said := sorted(name for name in declared if getattr(source, name) is not None)):
        raise ValueError(f"{', '.join(said)} can be declared of a file only: what was uploaded is declared already")


class Settings(Frozen):
    """How it is evaluated: settings of the evaluation's job, each at the job's own default unless given."""

    attacks: Annotated[tuple[AttackSpec, ...], Field(max_length=100), NotEmpty(), Listed] | None = None
    suite: SuiteName | None = None
    knowledge: Annotated[frozenset[Knowledge], NotEmpty(), Listed] | None = None
    rows: Rows | None = None
    """Evaluate the first so many rows of the dataset; all unless given."""
    seed: Seed | None = None
    precision: Literal["exact", "fast"] | None = None
    cascade: bool | None = None
    skip_proved: bool | None = None
    """Prove rows robust by sound bounds where the model has any; rules on `certified` need it."""
    stop: Literal["full", "early"] | None = None
    """`early`: end as soon as every rule on `clean` and `robust` is decided; rules on `worst_class`, `certified` and `queries` need
    every row, and with one of them the evaluation runs in full."""
    replay: Annotated[tuple[JobRef, ...], Field(max_length=20), Listed] | None = None
    """Earlier evaluations of the same data whose broken rows are tried first; none unless given, so that the verdict depends on
    nothing but the policy and what it names."""
    budget: Budget | None = None
    timeout: Seconds | None = None
    device: Where | None = None


class RuleBase(Frozen):
    """What every rule has."""

    id: Ident
    level: Literal["error", "warning"] = "error"
    """A warning is told and changes no exit code."""


class Sampled(RuleBase):
    """A rule on what was counted over rows: it holds where the confidence bound clears the limit, not where the point does."""

    min_samples: Samples = 1
    """With fewer rows than this the rule is inconclusive."""
    on_inconclusive: Literal["inconclusive", "violated", "pass"] = "inconclusive"
    """What it counts as where the interval includes the limit, where rows are too few, or where there is nothing to compare with."""


class AccuracyRule(Sampled):
    """A rate of rows that are right."""

    min: Share | None = None
    """The lower end of the 95 % interval must reach this."""
    max_drop: Share | None = None
    """Against the baseline, row by row: the upper end of the paired 95 % interval of the drop must not exceed this."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.min is None) == (self.max_drop is None):
            raise ValueError("give either min or max_drop: a rule asks one thing")
        return self


class CleanRule(AccuracyRule):
    """Accuracy on the rows as they are."""

    metric: Literal["clean"]


class RobustRule(AccuracyRule):
    """Accuracy in the worst case of a threat."""

    metric: Literal["robust"]
    threat: Ident


class WorstClassRule(Sampled):
    """Robust accuracy of the class that has the least; the intervals of all classes hold together (Bonferroni)."""

    metric: Literal["worst_class"]
    threat: Ident
    min: Share


class CertifiedRule(Sampled):
    """Rows that a sound bound proves robust."""

    metric: Literal["certified"]
    threat: Ident
    min: Share


class QueriesRule(Sampled):
    """Median of the queries spent until a row that was right is broken; a row that stands counts as more than any number."""

    metric: Literal["queries"]
    threat: Ident
    min: Samples


class TrustRule(RuleBase):
    """How far the number of a threat may be believed."""

    metric: Literal["trust"]
    threat: Ident
    min: TrustLevel


class TimeRule(RuleBase):
    """Wall-clock seconds of the evaluation."""

    metric: Literal["time"]
    max: Annotated[float, Field(gt=0), NotBool]


AnyRule = CleanRule | RobustRule | WorstClassRule | CertifiedRule | QueriesRule | TrustRule | TimeRule
METRICS = ("clean", "robust", "worst_class", "certified", "queries", "trust", "time")


def _metric_given(given: Any) -> Any:
    if isinstance(given, dict) and "metric" not in given:
        raise ValueError(f"the metric is missing: give one of {', '.join(METRICS)}")
    return given


Rule = Annotated[AnyRule, Discriminator("metric"), BeforeValidator(_metric_given)]


class BaselinePlace(Frozen):
    """Where the baselines are kept, and which branch is compared with."""

    file: File = "sparring-baselines.json"
    """Written by `sparring gate baseline accept`, and by nothing else."""
    branch: Branch = "main"


class Waiver(Frozen):
    """Forgives rules that do not hold, for a time."""

    id: Ident
    scope: Annotated[tuple[Ident, ...], NotEmpty(), Listed]
    """Ids of the rules."""
    reason: Words
    approved_by: Words
    expires: date
    """The last day on which it holds (UTC)."""
    floor: Share | None = None
    """Forgives only while the lower end of the interval reaches at least this; for rules with a min."""


class Policy(Frozen):
    """A gate: one evaluation, and the rules it must satisfy."""

    version: Literal[1]
    model: ModelSource
    data: DataSource
    evaluate: Settings = Settings()
    threats: Annotated[dict[Ident, Threat], Field(min_length=1, max_length=100)]
    """By the names that rules call them."""
    rules: Annotated[tuple[Rule, ...], Field(max_length=200), NotEmpty(), Listed]
    baseline: BaselinePlace = BaselinePlace()
    waivers: Annotated[tuple[Waiver, ...], Field(max_length=200), Listed] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _unique("rules", [rule.id for rule in self.rules])
        _unique("waivers", [waiver.id for waiver in self.waivers])
        for at, rule in enumerate(self.rules):
            if threat_of(rule) not in (None, *self.threats):
                raise ValueError(f"rules.{at}.threat: there is no threat {threat_of(rule)!r} (there are {', '.join(self.threats)})")
            if rule.metric == "certified" and not self.evaluate.skip_proved:
                raise ValueError(f"rules.{at}.metric: nothing is proved unless evaluate says skip_proved: true")
        if self.evaluate.stop == "early" and not any(isinstance(rule, AccuracyRule) for rule in self.rules):
            raise ValueError("evaluate.stop: no rule on clean or robust is there to be decided early; leave it out")
        rules = {rule.id: rule for rule in self.rules}
        for at, waiver in enumerate(self.waivers):
            if unknown := [name for name in waiver.scope if name not in rules]:
                raise ValueError(f"waivers.{at}.scope: there is no rule {unknown[0]!r}")
            if waiver.floor is not None and any(not isinstance(floored(rules[name]), float) for name in waiver.scope):
                raise ValueError(f"waivers.{at}.floor: a floor is for rules that ask for a min of a rate")
        try:
            self.job(_ANY, _ANY)
        except ValidationError as error:
            faults = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}".removeprefix(": ") for each in error.errors())
            raise ValueError(f"evaluate: {'; '.join(fault.replace('Value error, ', '') for fault in faults)}") from None
        return self

    def job(self, model: str, data: str, stop: Literal["full"] | Early = "full") -> Evaluate:
        """The evaluation, of uploads by id or sha256; `stop` says when it ends."""
        given = {name: getattr(self.evaluate, name) for name in self.evaluate.model_fields_set} | {"stop": stop}
        given["replay"] = self.evaluate.replay or ()
        settings = {name: value for name, value in given.items() if value is not None}
        return Evaluate(model=model, data=data, threats=tuple(self.threats.values()), **settings)


def _unique(what: str, names: list[str]) -> None:
    for at, name in enumerate(names):
        if name in names[:at]:
            raise ValueError(f"{what}.{at}.id: {name} is taken by another of the {what}")


def threat_of(rule: AnyRule) -> str | None:
    """The name of the threat a rule is about; None for clean accuracy and time."""
    return None if isinstance(rule, (CleanRule, TimeRule)) else rule.threat


def floored(rule: AnyRule) -> float | None:
    """The least rate a rule asks for; None where it asks for something else."""
    return rule.min if isinstance(rule, (CleanRule, RobustRule, WorstClassRule, CertifiedRule)) else None
