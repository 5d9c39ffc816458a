"""The defenses a job may ask for: each class declares its settings once, with default, bounds and paper."""

from typing import Annotated, get_args

from pydantic import BeforeValidator, Discriminator

from sparring.contract.base import require_kind
from sparring.contract.defenses.adversarial import MART, TRADES, YOPO, FastTraining, FGSMTraining, FreeLB, FreeTraining, PGDTraining
from sparring.contract.defenses.base import Ball, DefenseBase, Family, Transform
from sparring.contract.defenses.smooth import IMSAT, LDS, VAT, Dropout, GradientPenalty, LabelSmoothing, Noise, Plain, WeightPenalty
from sparring.contract.defenses.training import Training
from sparring.contract.defenses.wrappers import JPEG, BitDepth, NoisyInput, Smoothed, SmoothingCertificate, WrapperBase

AnyDefense = (
    Plain
    | Noise
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
)
DefenseSpec = Annotated[AnyDefense, Discriminator("kind"), BeforeValidator(lambda given: require_kind(given, DEFENSES))]
DEFENSES: tuple[type[AnyDefense], ...] = get_args(AnyDefense)
"""Every defense of the contract that trains, in the order of the union."""

AnyWrapper = JPEG | BitDepth | NoisyInput | Smoothed
WrapperSpec = Annotated[AnyWrapper, Discriminator("kind"), BeforeValidator(lambda given: require_kind(given, WRAPPERS))]
WRAPPERS: tuple[type[AnyWrapper], ...] = get_args(AnyWrapper)
"""Everything that may stand before a model when it is used."""

__all__ = ["DEFENSES", "IMSAT", "JPEG", "LDS", "MART", "TRADES", "VAT", "WRAPPERS", "YOPO", "AnyDefense", "AnyWrapper", "Ball", "BitDepth"]
__all__ += ["DefenseBase", "DefenseSpec", "Dropout", "FGSMTraining", "Family", "FastTraining", "FreeLB", "FreeTraining", "GradientPenalty"]
__all__ += ["LabelSmoothing", "Noise", "NoisyInput", "PGDTraining", "Plain", "Smoothed", "SmoothingCertificate", "Training", "Transform"]
__all__ += ["WeightPenalty", "WrapperBase", "WrapperSpec"]
