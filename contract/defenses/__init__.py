"""The defenses a job may ask for: each class declares its settings once, with default, bounds and paper."""

from typing import Annotated, get_args

from pydantic import BeforeValidator, Discriminator

from sparring.contract.base import require_kind
from sparring.contract.defenses.adversarial import (
    ALP,
    MART,
    TRADES,
    YOPO,
    EnsembleTraining,
    FastTraining,
    FGSMTraining,
    FreeLB,
    FreeTraining,
    FriendlyTraining,
    PGDTraining,
)
from sparring.contract.defenses.base import Adversarial, DefenseBase, Family, Transform
from sparring.contract.defenses.smooth import IMSAT, LDS, VAT, Dropout, GradientPenalty, LabelSmoothing, Mixup, Noise, Plain, WeightPenalty
from sparring.contract.defenses.training import Training
from sparring.contract.defenses.wrappers import JPEG, BitDepth, NoisyInput, Smoothed, SmoothingCertificate, WrapperBase

AnyDefense = (
    Plain
    | Noise
    | Mixup
    | Dropout
    | LabelSmoothing
    | WeightPenalty
    | GradientPenalty
    | LDS
    | VAT
    | IMSAT
    | FGSMTraining
    | FastTraining
    | PGDTraining
    | FreeTraining
    | YOPO
    | FreeLB
    | TRADES
    | MART
    | ALP
    | FriendlyTraining
    | EnsembleTraining
)
DefenseSpec = Annotated[AnyDefense, Discriminator("kind"), BeforeValidator(lambda given: require_kind(given, DEFENSES))]
DEFENSES: tuple[type[AnyDefense], ...] = get_args(AnyDefense)
"""Every defense of the contract that trains, in the order of the union."""

AnyWrapper = JPEG | BitDepth | NoisyInput | Smoothed
WrapperSpec = Annotated[AnyWrapper, Discriminator("kind"), BeforeValidator(lambda given: require_kind(given, WRAPPERS))]
WRAPPERS: tuple[type[AnyWrapper], ...] = get_args(AnyWrapper)
"""Everything that may stand before a model when it is used."""

__all__ = ["ALP", "DEFENSES", "IMSAT", "JPEG", "LDS", "MART", "TRADES", "VAT", "WRAPPERS", "YOPO", "Adversarial", "AnyDefense"]
__all__ += ["AnyWrapper", "BitDepth", "DefenseBase", "DefenseSpec", "Dropout", "EnsembleTraining", "FGSMTraining", "Family"]
__all__ += ["FastTraining", "FreeLB", "FreeTraining", "FriendlyTraining", "GradientPenalty", "LabelSmoothing", "Mixup", "Noise"]
__all__ += ["NoisyInput", "PGDTraining", "Plain", "Smoothed", "SmoothingCertificate", "Training", "Transform", "WeightPenalty"]
__all__ += ["WrapperBase", "WrapperSpec"]
