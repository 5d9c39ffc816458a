"""Attacks that train a model of their own: from the training data (gray box), or from the target's answers (black box)."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, model_validator

from sparring.contract.attacks.base import AttackBase, Steps
from sparring.contract.attacks.gradient import APGD, BIM, DIFGSM, FGM, FGSM, MIFGSM, NIFGSM, PGD, RFGSM, SIFGSM, TIFGSM
from sparring.contract.base import require_kind
from sparring.contract.quantity import NotBool, PlusSeparated, PositiveQuantity
from sparring.contract.refs import Ref

Architecture = Literal["mlp", "cnn", "tanh", "eegnet", "same"]

AnyCrafter = FGSM | FGM | RFGSM | BIM | MIFGSM | DIFGSM | NIFGSM | SIFGSM | TIFGSM | PGD | APGD
CRAFTERS: tuple[type[AnyCrafter], ...] = get_args(AnyCrafter)


def _crafter(given: Any) -> Any:
    return {"kind": given} if isinstance(given, str) else require_kind(given, CRAFTERS)


Crafter = Annotated[AnyCrafter, Discriminator("kind"), BeforeValidator(_crafter)]
"""A white-box attack, as an object or by its kind alone."""

MAX_SURROGATES = 20
Surrogates = Annotated[tuple[Ref, ...], Field(max_length=MAX_SURROGATES), PlusSeparated]
"""Uploaded models that serve as surrogates."""


class Transfer(AttackBase):
    """Adversarial examples of surrogates, shown to the target once each: what breaks one model often breaks another.

    The surrogates are trained inside the job, on rows that are not evaluated: those of the job's `training`, or else those of
    its data that come after the evaluated ones. Uploaded models can serve as surrogates too. A row is broken if any of them breaks it.
    """

    title = "Transfer"
    paper = "Papernot, McDaniel, Goodfellow 2016, arXiv 1605.07277; gray box: Zhang, Wu 2019, arXiv 1904.01002"
    access = "decision"
    knowledge = "gray"
    norms = ("linf", "l2")
    converges = False

    kind: Literal["transfer"] = "transfer"
    attack: Crafter = MIFGSM()
    """The white-box attack run on each surrogate, in full."""
    architectures: Annotated[tuple[Architecture, ...], Field(max_length=MAX_SURROGATES), PlusSeparated] | None = None
    """Surrogates to train: mlp, cnn (pictures), tanh (one hidden layer), eegnet (channels by samples), same (the target's own
    architecture, if it is of the built-in zoo). Unless given mlp, and cnn where rows are pictures; none where `models` are."""
    models: Surrogates = ()
    """Uploaded models to use as surrogates."""
    ensemble: bool = False
    """Attack the mean of the surrogates' logits, once, and not each of them in turn."""
    epochs: Steps = 30
    """Passes over the training rows, for surrogates that are trained."""
    limit: Steps = 10_000
    """Training rows at most, drawn from the job's seed."""

    @model_validator(mode="after")
    def _some(self) -> "Transfer":
        if self.architectures == () and not self.models:
            raise ValueError("there is no surrogate: name architectures to train, or models")
        return self


class Substitute(AttackBase):
    """A substitute is trained on the target's answers to queries, which spread from a few rows along its own Jacobian; then it is attacked.

    The first rows are the attacker's own and never evaluated: from the job's `training`, or of its data after the evaluated ones.
    """

    title = "Substitute"
    paper = "Papernot et al. 2016, arXiv 1602.02697; for EEG: Zhang, Wu 2019, arXiv 1904.01002"
    access = "decision"
    knowledge = "black"
    norms = ("linf", "l2")
    converges = False

    kind: Literal["substitute"] = "substitute"
    attack: Crafter = MIFGSM()
    """The white-box attack run on the substitute, in full."""
    architecture: Architecture = "tanh"
    """The substitute: see transfer's architectures."""
    seeds: Steps = 150
    """Rows of the attacker's own to begin with."""
    rounds: Annotated[int, Field(ge=1, le=12), NotBool] = 6
    """Times the substitute is trained anew; between two of them the rows double. Queries before the attack: seeds * 2^(rounds - 1)."""
    augmentation: Literal["jacobian", "fgsm"] = "jacobian"
    """New rows lie along the slope of the target's class (Jacobian), or of the substitute's loss (fgsm, as done for EEG)."""
    step: PositiveQuantity = 0.1
    """How far a new row lies from its parent, in units of the data; the sign of `jacobian` turns every three rounds."""
    epochs: Steps = 10
    """Passes over the rows in each round."""

    @property
    def labelling(self) -> int:
        """Queries spent on labels before any row is attacked."""
        return self.seeds << (self.rounds - 1)
