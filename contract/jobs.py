"""Jobs: what a user asks a worker to do. Models and data are named by sha256 or id, never by path."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Discriminator, Field, PlainSerializer, Tag, TypeAdapter, model_validator

from sparring.contract.attacks import (
    ACCESSES,
    ATTACKS,
    CASCADES,
    PGD,
    SUITES,
    Access,
    AttackSpec,
    Knowledge,
    Noise,
    Replay,
    Substitute,
    SuiteName,
    Transfer,
)
from sparring.contract.base import Frozen, require_kind
from sparring.contract.certificates import AnyCertificate, Certificate, LinearBounds
from sparring.contract.corruptions import CORRUPTIONS, CorruptionName
from sparring.contract.early import Early
from sparring.contract.endpoints import AnyEndpoint, Budget
from sparring.contract.fields import Rows, Seconds, Seed, Where
from sparring.contract.quantity import Listed, NotEmpty
from sparring.contract.refs import JobRef, Need, Ref
from sparring.contract.retrain import Retrain
from sparring.contract.threat import Norm, Threat

LARGEST = 1 << 20
"""Bytes of a job as JSON that a service takes."""


def _fits(attack: AttackSpec, threat: Threat, where: str) -> None:
    if threat.norm not in attack.norms:
        known = ", ".join(attack.norms)
        raise ValueError(f"{where}: {attack.kind} is not defined for norm {threat.norm} (it knows {known})")
    if threat.targeted and not attack.targetable:
        raise ValueError(f"{where}: {attack.kind} cannot aim at a class; leave it out, or ask for an untargeted threat")
    if isinstance(attack, (Transfer, Substitute)):
        _fits(attack.attack, threat, f"{where}.attack")


def _distinct(threats: Iterable[Threat]) -> None:
    seen: set[tuple[str, float, bool]] = set()
    for at, threat in enumerate(threats):
        if (same := (threat.norm, threat.radius, threat.targeted)) in seen:
            raise ValueError(f"threats.{at}: the same threat is listed twice")
        seen.add(same)


def _certifies(certificate: AnyCertificate | None, threat: Threat, where: str) -> None:
    if certificate and threat.norm not in certificate.norms:
        raise ValueError(f"{where}: {certificate.kind} certifies nothing in norm {threat.norm} (it knows {', '.join(certificate.norms)})")


def _needs(training: Ref | None, attacks: Iterable[tuple[str, AttackSpec]]) -> dict[str, Need]:
    """By the word of the job: its training rows are `training`, and a surrogate is what names it."""
    found = {} if training is None else {"training": Need("dataset", training, "/training")}
    for place, attack in attacks:
        for at, ref in enumerate(attack.models if isinstance(attack, Transfer) else ()):
            found.setdefault(ref, Need("model", ref, f"{place}/models/{at}"))
    return found


def _listed(attack: AttackSpec, place: str) -> None:
    if isinstance(attack, Replay):
        raise ValueError(f"{place}: replay is not listed: name the evaluations in the own `replay` of an evaluation")


def _stop_given(given: Any) -> Any:
    if isinstance(given, str) and given != "full":
        raise ValueError("must be 'full', or of kind early with its questions, which `sparring gate` makes from the rules of a policy")
    return given


Stop = Annotated[
    Annotated[Literal["full"], Tag("full")] | Annotated[Early, Tag("early")],
    Discriminator(lambda given: "full" if isinstance(given, str) else "early"),
    BeforeValidator(_stop_given),
]


class Evaluate(Frozen):
    """How robust is this model on this data?"""

    kind: Literal["evaluate"] = "evaluate"
    model: Ref
    data: Ref
    threats: Annotated[tuple[Threat, ...], Field(max_length=100), NotEmpty(), Listed]
    attacks: Annotated[tuple[AttackSpec, ...], Field(max_length=100), Listed] = ()
    """Attacks to run; a job has either these or a suite. With neither it runs the suite `quick`."""
    suite: SuiteName | None = None
    knowledge: Annotated[frozenset[Knowledge], NotEmpty(), Listed, PlainSerializer(sorted)] = frozenset({"white", "gray", "black"})
    """What the attacker may know; attacks of a suite that need more are left out."""
    training: Ref | None = None
    """Rows that the attacker has, for attacks that learn from such beforehand; unless given, those of `data` that are not evaluated."""
    corruptions: Annotated[tuple[CorruptionName, ...], Field(max_length=len(CORRUPTIONS)), Listed] = ()
    """Common corruptions to measure as well, each in five severities; the data must be pictures with bounds."""
    rows: Rows | None = None
    """Evaluate the first so many rows of the dataset; all unless given."""
    seed: Seed = 0
    precision: Literal["exact", "fast"] = "exact"
    """How the attacks compute: `exact` searches in float32; `fast` takes gradients in bfloat16, which can miss a break but never
    claim one; attacks that look for the smallest change stay exact. The verdict is the unchanged model's in any case."""
    cascade: bool | None = None
    """Try an attack only on the rows that those before it left standing: much faster, and the worst case is the same; but only
    the worst case and each attack's gain are figures then. Unless given, the suites standard and thorough do, others do not."""
    skip_proved: bool = False
    """Rows that a sound bound proves robust count as standing without being attacked; only some graphs have such bounds."""
    certificate: Certificate | None = None
    """Certify every row as well, and attack it all the same: the truth lies between what is certified and what no attack broke.

    With `smoothing` it is the smoothed model that is certified and attacked, the noise averaged over (EOT).
    """
    stop: Stop = "full"
    """When to end: `full` evaluates every row; `early` as many as it takes to answer the questions that it carries."""
    replay: Annotated[tuple[JobRef, ...], Field(max_length=20), Listed] | None = None
    """Evaluations of the same data whose broken rows are tried first. Unless given, the service names the newest one of each version
    that the model comes from, if there are any; with an empty list nothing is replayed."""
    budget: Budget | None = None
    """How much may be asked of an endpoint, 100,000 rows unless given; for models that are endpoints only."""
    timeout: Seconds = 6 * 3600
    """Wall-clock seconds after which the job ends as timed_out."""
    device: Where = "auto"

    @model_validator(mode="before")
    @classmethod
    def _suite_named(cls, given: Any) -> Any:
        """Writes down the suite that is meant, so that the job and its report say what was run."""
        if isinstance(given, dict) and not given.get("attacks") and given.get("suite") is None:
            return {**given, "suite": "quick"}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.attacks and self.suite:
            raise ValueError("attacks and suite exclude each other: give one of them")
        if self.certificate and self.skip_proved:
            raise ValueError("skip_proved: with a certificate every row is attacked: leave one of them out")
        if self.certificate and self.certificate.kind == "smoothing" and self.precision == "fast":
            raise ValueError("precision: a smoothed model is attacked in full precision: leave it exact")
        _distinct(self.threats)
        for at, threat in enumerate(self.threats):
            _certifies(self.certificate, threat, f"threats.{at}")
        for at, corruption in enumerate(self.corruptions):
            if corruption in self.corruptions[:at]:
                raise ValueError(f"corruptions.{at}: {corruption} is listed twice")
        for at, attack in enumerate(self.attacks):
            _listed(attack, f"attacks.{at}")
            if attack.knowledge not in self.knowledge:
                raise ValueError(f"attacks.{at}: {attack.kind} needs {attack.knowledge}-box knowledge, which the job does not grant")
            for threat in self.threats:
                _fits(attack, threat, f"attacks.{at}")
        for at, threat in enumerate(self.threats):
            if not self._searching(threat):
                covered = ", ".join(norm for norm in get_args(Norm) if self._searching(Threat(norm=norm, eps=0)))
                what = f"no attack of the suite is defined for norm {threat.norm} with this knowledge"
                raise ValueError(f"threats.{at}: {what} (it covers {covered or 'nothing'})")
        for at, question in enumerate(self.stop.questions if isinstance(self.stop, Early) else ()):
            if question.threat is not None and question.threat >= len(self.threats):
                raise ValueError(f"stop.questions.{at}.threat: there is no threat {question.threat}: they are numbered from 0")
        return self

    @property
    def cascaded(self) -> bool:
        """`cascade` as it is meant."""
        return self.suite in CASCADES if self.cascade is None else self.cascade

    def against(self, threat: Threat) -> tuple[AttackSpec, ...]:
        """The attacks that are run against one threat, in their order."""
        past = (Replay(jobs=self.replay),) if self.replay and "black" in self.knowledge else ()
        return (*past, *self._searching(threat))

    def _searching(self, threat: Threat) -> tuple[AttackSpec, ...]:
        if self.attacks:
            return self.attacks
        _, attacks = SUITES[self.suite or "quick"]
        able = (a for a in attacks if threat.norm in a.norms and a.knowledge in self.knowledge)
        able = (a for a in able if not isinstance(a, (Transfer, Substitute)) or threat.norm in a.attack.norms)
        return tuple(a for a in able if a.targetable or not threat.targeted)

    def needs(self) -> dict[str, Need]:
        """Uploads it needs beside its model and its data, each under a name of its own."""
        return _needs(self.training, ((f"/attacks/{at}", attack) for at, attack in enumerate(self.attacks)))


class Craft(Frozen):
    """Adversarial examples as a dataset to download: one attack, its full course on every row."""

    kind: Literal["craft"] = "craft"
    model: Ref
    data: Ref
    threat: Threat
    attack: AttackSpec
    training: Ref | None = None
    """As for an evaluation."""
    rows: Rows | None = None
    seed: Seed = 0
    budget: Budget | None = None
    timeout: Seconds = 6 * 3600
    device: Where = "auto"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _listed(self.attack, "attack")
        _fits(self.attack, self.threat, "attack")
        return self

    @property
    def threats(self) -> tuple[Threat, ...]:
        """The one threat, in the shape of an evaluation's."""
        return (self.threat,)

    def against(self, threat: Threat) -> tuple[AttackSpec, ...]:
        """The one attack."""
        return (self.attack,)

    def needs(self) -> dict[str, Need]:
        """Uploads it needs beside its model and its data, each under a name of its own."""
        return _needs(self.training, [("/attack", self.attack)])


class Certify(Frozen):
    """How many rows provably hold? They are attacked as well, so that the truth is known from both sides.

    It is carried out, and reported, as the evaluation that it stands for.
    """

    kind: Literal["certify"] = "certify"
    model: Ref
    data: Ref
    threats: Annotated[tuple[Threat, ...], Field(max_length=100), NotEmpty(), Listed]
    method: Certificate = LinearBounds()
    """What certifies."""
    attacks: Annotated[tuple[AttackSpec, ...], Field(max_length=100), Listed] = ()
    """What is run beside it; unless given the suite, for a smoothed model PGD from several starts."""
    suite: SuiteName | None = None
    """The attacks by name; `standard` unless given."""
    rows: Rows | None = None
    """Certify the first so many rows of the dataset; all unless given."""
    seed: Seed = 0
    timeout: Seconds = 6 * 3600
    """Wall-clock seconds after which the job ends as timed_out."""
    device: Where = "auto"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.attacks and self.suite:
            raise ValueError("attacks and suite exclude each other: give one of them")
        _distinct(self.threats)
        for at, threat in enumerate(self.threats):
            _certifies(self.method, threat, f"threats.{at}")
            for place, attack in enumerate(self.attacks):
                _listed(attack, f"attacks.{place}")
                _fits(attack, threat, f"attacks.{place}")
        return self

    def evaluation(self) -> Evaluate:
        """What is run."""
        given = {name: getattr(self, name) for name in ("model", "data", "threats", "rows", "seed", "timeout", "device")}
        smoothed = self.method.kind == "smoothing"
        attacks = self.attacks or (_ON_SMOOTHED if smoothed and not self.suite else ())
        suite = None if attacks else self.suite or "standard"
        return Evaluate(**given, certificate=self.method, attacks=attacks, suite=suite, cascade=True)

    def needs(self) -> dict[str, Need]:
        """Uploads it needs beside its model and its data, each under a name of its own."""
        return self.evaluation().needs()


_ON_SMOOTHED: tuple[AttackSpec, ...] = (Noise(), PGD(steps=20, restarts=2), PGD(steps=20, loss="margin"))
Attacking = Evaluate | Craft
"""Jobs that attack a model as it is."""
KINDS = (Evaluate, Craft, Retrain, Certify)
# Discriminator, not Field: FastAPI would take a Field for its own, and apply it to what the validator returns.
AttackJob = Annotated[Attacking, Discriminator("kind")]
AnyJob = Attacking | Retrain | Certify
Job = Annotated[AnyJob, Discriminator("kind"), BeforeValidator(lambda given: require_kind(given, KINDS))]
JOB: TypeAdapter[AnyJob] = TypeAdapter(Job)


def feasible(job: Attacking, threat: Threat, access: Access) -> tuple[AttackSpec, ...]:
    """The attacks of a job against one threat that a model of this access allows, in their order."""
    return tuple(attack for attack in job.against(threat) if ACCESSES.index(attack.access) <= ACCESSES.index(access))


def misfit(job: AnyJob, endpoint: AnyEndpoint | None) -> tuple[str, str] | None:
    """What of a job cannot be done to a model that is this endpoint (None: a file): its JSON pointer, and why; None if all can."""
    if isinstance(job, Retrain):
        hint = "upload the model as a file"
        return ("/model", f"an endpoint has no weights that could be trained: {hint}") if endpoint else None
    if endpoint and (isinstance(job, Certify) or (isinstance(job, Evaluate) and job.certificate)):
        return "/model", "nothing can be proved of an endpoint, which is known by its answers alone: upload the model as a file"
    if isinstance(job, Certify):
        return None
    if endpoint is None:
        return ("/budget", "a budget is for models that are endpoints: leave it out") if job.budget else None
    gives = "labels alone" if endpoint.access == "decision" else "scores alone"
    listed = job.attacks if job.kind == "evaluate" else (job.attack,)
    for at, attack in enumerate(listed):
        if ACCESSES.index(attack.access) > ACCESSES.index(endpoint.access):
            where = f"/attacks/{at}" if job.kind == "evaluate" else "/attack"
            return where, f"{attack.kind} needs a {attack.access}, and the model is an endpoint that gives {gives}: {_able(endpoint)}"
    for at, threat in enumerate(job.threats):
        if not feasible(job, threat, endpoint.access):
            what = f"every attack of the suite on this threat needs more than an endpoint gives, which is {gives}"
            return f"/threats/{at}", f"{what}: list attacks instead; {_able(endpoint)}"
    return None


def _able(endpoint: AnyEndpoint) -> str:
    able = [attack for attack in ATTACKS if ACCESSES.index(attack.access) <= ACCESSES.index(endpoint.access)]
    return f"attacks that can be run are {', '.join(str(attack.model_fields['kind'].default) for attack in able)}"
