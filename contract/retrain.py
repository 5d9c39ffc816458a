"""A job that trains: defenses against attack, each on a model of its own, all measured on the same rows."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from sparring.contract.attacks import SUITES, SuiteName
from sparring.contract.base import Frozen, numbered
from sparring.contract.defenses import Adversarial, DefenseSpec, EnsembleTraining, Training
from sparring.contract.defenses.base import Share
from sparring.contract.fields import Rows, Seconds, Seed, Where
from sparring.contract.quantity import Listed, NotBool, NotEmpty
from sparring.contract.refs import Need, Ref
from sparring.contract.threat import Norm, Threat


class Retrain(Frozen):
    """Train a model so that it withstands attack, and prove it on rows that it has not seen.

    The rows are parted: most are learnt from; on the validation rows it is decided which epoch, and which defense, is handed on;
    nothing at all is decided on the test rows, on which the model is measured before and after.
    """

    kind: Literal["retrain"] = "retrain"
    model: Ref
    data: Ref
    """Rows with labels."""
    unlabelled: Ref | None = None
    """Rows without labels, for defenses that learn from them too: vat and lds."""
    test: Ref | None = None
    """Rows to measure on; unless given, a share of `data` is held out for it."""
    defenses: Annotated[tuple[DefenseSpec, ...], Field(max_length=20), NotEmpty(), Listed]
    """Each is trained on a copy of the model; they are told side by side."""
    training: Training = Training()
    """The same for all."""
    scratch: bool = False
    """Begin with fresh weights; otherwise those of the model are trained on."""
    validation: Share = 0.1
    """Share of the rows of `data` that epochs and defenses are chosen on; with 0 the last epoch and the first defense are handed on."""
    held_out: Share = 0.2
    """Share of the rows of `data` that is measured, where `test` is not given."""
    patience: Annotated[int, Field(ge=1, le=100_000), NotBool] | None = None
    """Epochs without a better robust accuracy on the validation rows after which training stops; unless given, all are run."""
    precision: Literal["exact", "fast"] = "exact"
    """`fast`: forward and backward passes of the training in bfloat16, weights and their steps in float32."""
    threats: Annotated[tuple[Threat, ...], Field(max_length=20), Listed] = ()
    """What is measured; unless given, the balls of the defenses, and where none has one, 8/255 of the data's range in linf."""
    suite: SuiteName = "defended"
    """The attacks it is measured by."""
    rows: Rows | None = None
    """Use the first so many rows of `data`; all unless given."""
    seed: Seed = 0
    """Of how rows are parted, and of the attacks; that of the training stands in `training`."""
    timeout: Seconds = 24 * 3600
    """Wall-clock seconds after which the job ends as timed_out; a retry goes on from the last checkpoint."""
    device: Where = "auto"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for at, defense in enumerate(self.defenses):
            if defense in self.defenses[:at]:
                raise ValueError(f"defenses.{at}: the same defense is listed twice")
            if defense.kind == "imsat":
                raise ValueError(f"defenses.{at}: imsat finds classes of its own, and a retrained model keeps those it had; leave it out")
            if isinstance(defense, EnsembleTraining) and not defense.models:
                how = "upload other models of the same input and classes, and name them in its models (by the command: --surrogate FILE)"
                raise ValueError(f"defenses.{at}: ensemble has no surrogate: {how}")
        if self.unlabelled and not any(defense.unlabelled for defense in self.defenses):
            raise ValueError("unlabelled: none of the defenses learns from rows without labels; leave them out, or ask for vat or lds")
        if self.patience and not self.validation:
            raise ValueError("patience: training cannot stop early without validation rows: give validation a share above 0")
        if not self.held_out and not self.test:
            raise ValueError("held_out: with 0 there is nothing to measure on: give test, or a share above 0")
        taken = self.validation + (0 if self.test else self.held_out)
        if taken >= 1:
            raise ValueError(f"validation: together with held_out it takes {taken:g} of the rows, which leaves none to learn from")
        for at, threat in enumerate(self.threats):
            if any((each.norm, each.radius, each.targeted) == (threat.norm, threat.radius, threat.targeted) for each in self.threats[:at]):
                raise ValueError(f"threats.{at}: the same threat is listed twice")
            if not any(threat.norm in attack.norms for attack in SUITES[self.suite][1]):
                raise ValueError(f"threats.{at}: no attack of the suite {self.suite} is defined for norm {threat.norm}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """One short unique name per defense: its kind, numbered from the second on (`pgd`, `pgd-2`)."""
        return numbered(defense.kind for defense in self.defenses)

    def measured(self, span: float) -> tuple[Threat, ...]:
        """The threats every model of the job is measured under, for data of this range."""
        if self.threats:
            return self.threats
        balls: list[Adversarial] = [defense for defense in self.defenses if isinstance(defense, Adversarial)] or [Adversarial()]
        norms: tuple[Norm, ...] = get_args(Norm)
        written = {(norms.index(ball.norm), ball.radius(span)): ball.eps for ball in balls}
        found = tuple(Threat(norm=norms[at], eps=written[at, radius] or radius) for at, radius in sorted(written) if radius)
        return found or (Threat(norm="linf", eps=span * 8 / 255),)

    def needs(self) -> dict[str, Need]:
        """Uploads it needs beside its model and its data, each under a name of its own."""
        given = {"unlabelled": self.unlabelled, "test": self.test}
        found = {name: Need("dataset", ref, f"/{name}") for name, ref in given.items() if ref is not None}
        for at, defense in enumerate(self.defenses):
            for place, ref in enumerate(defense.models if isinstance(defense, EnsembleTraining) else ()):
                found.setdefault(ref, Need("model", ref, f"/defenses/{at}/models/{place}"))
        return found
