"""What came of a retrain job: every defense beside the others, and the model as it was."""

from math import exp, fsum, lgamma, log
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag, TypeAdapter

from sparring.contract.base import Frozen
from sparring.contract.defenses import DefenseSpec, Training
from sparring.contract.report import Cost, Count, DataFacts, Finding, ModelFacts, Provenance, Report, Score
from sparring.contract.retrain import Retrain
from sparring.contract.threat import Threat

End = Literal["finished", "stopped_early", "diverged", "overfitting"]


class Paired(Frozen):
    """Two models on the same rows: how often each was right."""

    both: Count
    lost: Count
    """Right before and wrong after."""
    gained: Count
    """Wrong before and right after."""
    neither: Count

    @property
    def change(self) -> float:
        """Accuracy after less accuracy before; NaN of nothing."""
        total = self.both + self.lost + self.gained + self.neither
        return (self.gained - self.lost) / total if total else float("nan")

    @property
    def p_value(self) -> float:
        """McNemar's exact test, two-sided: how likely rows part so unevenly, or more so, if both models are equally good."""
        parted = self.lost + self.gained
        if not parted:
            return 1.0
        most = lgamma(parted + 1) - parted * log(2)
        ways = (exp(most - lgamma(k + 1) - lgamma(parted - k + 1)) for k in range(min(self.lost, self.gained) + 1))
        return min(1.0, 2 * fsum(ways))


class Epoch(Frozen):
    """How a model in training did at the end of an epoch."""

    epoch: Count
    loss: float | None = None
    """Mean over its updates, in nats; absent where it is not finite."""
    clean_training: Score | None = None
    """On some rows that are learnt from."""
    robust_training: Score | None = None
    """On these rows under PGD."""
    clean: Score | None = None
    """On the validation rows; absent where there are none."""
    single: Score | None = None
    """On these rows under the single step (FGSM, FGM)."""
    robust: Score | None = None
    """On these rows under PGD; with several threats rows that hold against all."""


class DefenseResult(Frozen):
    """One defense: how the training went, and the model that came of it."""

    name: str
    """Unique among the defenses of the job: `pgd`, `pgd-2`."""
    defense: DefenseSpec
    gradients: Count
    """Times each row goes forward and back through the model in one epoch."""
    epochs: Count
    """That were run."""
    epoch: Count
    """Whose weights are handed on."""
    end: End
    reason: str = ""
    """Why the training ended, in words."""
    curve: tuple[Epoch, ...]
    seconds: float
    """Process seconds of the training, those of earlier attempts included."""
    resumed: Count = 0
    """Epochs that were taken over from an attempt that was cut off."""
    notes: tuple[str, ...] = ()
    """What a reader must know of how it was trained."""
    after: Report
    """The model it gave, on the test rows."""
    clean: Paired
    """Before and after, without an attack."""
    robust: tuple[Paired, ...]
    """Before and after, under each threat."""
    files: dict[str, str]
    """Files that hold the model, by their form: `pt2`, `safetensors`, `onnx`, `state_dict`."""
    findings: tuple[Finding, ...] = ()


class Parts(Frozen):
    """How many rows serve what."""

    training: Count
    validation: Count
    test: Count
    unlabelled: Count = 0


class RetrainReport(Frozen):
    """What came of a retrain job."""

    version: Literal[1] = 1
    job: Retrain
    model: ModelFacts
    """As it was uploaded."""
    data: DataFacts
    parts: Parts
    threats: tuple[Threat, ...]
    before: Report
    """The model as it was, on the test rows."""
    each: tuple[DefenseResult, ...]
    """The defenses in the order of the job."""
    chosen: str
    """Name of the defense that did best on the validation rows; nothing was chosen on the test rows."""
    warnings: tuple[Finding, ...] = ()
    advice: tuple[str, ...] = ()
    """What the figures suggest, in sentences."""
    cost: Cost
    provenance: Provenance

    @property
    def best(self) -> DefenseResult:
        """The defense that is handed on."""
        return next(each for each in self.each if each.name == self.chosen)


class Recipe(Frozen):
    """How a model was trained."""

    defense: DefenseSpec
    training: Training
    scratch: bool
    precision: str
    epoch: Count
    """Whose weights these are."""


class Source(Frozen):
    """A model that another was trained against."""

    id: str
    sha256: str


class Lineage(Frozen):
    """Where a model comes from."""

    parent: str
    """Id of the model it was trained from."""
    parent_sha256: str
    data: str
    """Id of the dataset it was trained on."""
    data_sha256: str
    unlabelled: str | None = None
    surrogates: tuple[Source, ...] = ()
    """What the rows were moved against beside the model itself."""
    recipe: Recipe
    seed: int
    """Of the training."""
    parting: int
    """Seed of how rows were parted."""


def _tag(given: Any) -> str:
    job = given.get("job") if isinstance(given, dict) else getattr(given, "job", None)
    kind = job.get("kind") if isinstance(job, dict) else getattr(job, "kind", "")
    return "retrain" if kind == "retrain" else "attack"


AnyReport = Annotated[Annotated[Report, Tag("attack")] | Annotated[RetrainReport, Tag("retrain")], Discriminator(_tag)]
REPORT: TypeAdapter[Report | RetrainReport] = TypeAdapter(AnyReport)
