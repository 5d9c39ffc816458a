"""Every defense of the contract as a recipe."""

from collections.abc import Sequence
from typing import assert_never

from torch import nn

from sparring.contract.defenses import (
    ALP,
    IMSAT,
    LDS,
    MART,
    TRADES,
    VAT,
    YOPO,
    AnyDefense,
    Dropout,
    EnsembleTraining,
    FastTraining,
    FGSMTraining,
    FreeLB,
    FreeTraining,
    FriendlyTraining,
    GradientPenalty,
    LabelSmoothing,
    Mixup,
    Noise,
    PGDTraining,
    Plain,
    WeightPenalty,
)
from sparring.contract.quantity import Quantity, value
from sparring.defenses import noise, objectives, penalties, smoothness, updates
from sparring.defenses.data import Data, Facts
from sparring.defenses.imsat import neighbour_distances
from sparring.defenses.objectives import on_perturbed
from sparring.defenses.perturb import anywhere, beside, centre, friendly, labels, one_step, pgd, predicted, prediction
from sparring.defenses.recipe import Perturb, Recipe

EPS, XI = 0.3, 0.01
"""Length of a virtual adversarial perturbation and of the step that probes for it, as shares of the data's spread."""
NEAR = 0.001
"""Standard deviation of the noise that TRADES and MART climb from, as a share of the data's range."""
FOLDED = "crafted on a copy with its batch norms folded away"


def _of_spread(given: Quantity | None, share: float, facts: Facts) -> float:
    return share * facts.spread if given is None else value(given)


def _noise(spec: Noise, facts: Facts) -> Recipe:
    size = value(spec.size)
    if spec.where == "input":
        return Recipe(objectives.noisy_input(noise.on_rows(spec.distribution, size, facts.span), spec.samples))
    draw = noise.anywhere(spec.distribution, size)
    if spec.where == "layers":
        return Recipe(objectives.noisy_layers(draw, spec.samples, spec.layers))
    return Recipe(objectives.noisy_weights(draw, spec.samples))


def _vat(spec: VAT, facts: Facts) -> Recipe:
    eps, xi = _of_spread(spec.eps, EPS, facts), _of_spread(spec.xi, XI, facts)
    return Recipe(smoothness.vat(eps, xi, spec.iterations, value(spec.weight), value(spec.entropy), spec.ramp))


def _imsat(spec: IMSAT, facts: Facts, data: Data) -> Recipe:
    far = neighbour_distances(data, spec.neighbour) * value(spec.reach)
    xi = _of_spread(spec.xi, XI, facts)
    weights = value(spec.weight), value(spec.balance)
    return Recipe(smoothness.imsat(lambda row: far[row.cpu()].to(row.device), xi, spec.iterations, *weights))


def _ensemble(spec: EnsembleTraining, facts: Facts, surrogates: Sequence[nn.Module]) -> Recipe:
    moved = one_step(spec.norm, spec.radius(facts.span), labels if spec.labels == "true" else predicted, surrogates)
    return Recipe(objectives.on_both if spec.clean else on_perturbed, moved)


def _pgd(spec: PGDTraining | TRADES | MART | ALP, facts: Facts) -> Perturb:
    """The steps that what is learnt from begins with."""
    eps = spec.radius(facts.span)
    start, aim = beside(NEAR * facts.span), prediction if isinstance(spec, TRADES) else labels
    if isinstance(spec, ALP):
        start = anywhere
    if isinstance(spec, PGDTraining):
        start = anywhere if spec.start == "random" else centre
    return pgd(spec.norm, eps, spec.step_size(eps), spec.steps, start, aim, folded=spec.inner == "folded", ramp=spec.ramp)


def _adversarial(
    spec: FGSMTraining | FastTraining | PGDTraining | FreeTraining | YOPO | FreeLB | TRADES | MART | ALP | FriendlyTraining, facts: Facts
) -> Recipe:
    eps = spec.radius(facts.span)
    match spec:
        case FGSMTraining():
            return Recipe(on_perturbed, one_step(spec.norm, eps), guard=spec.guard)
        case FastTraining():
            return Recipe(on_perturbed, pgd(spec.norm, eps, spec.step_size(eps), 1), guard=spec.guard)
        case FreeTraining():
            return Recipe(on_perturbed, update=updates.replay(spec.norm, eps, spec.replays), replays=spec.replays)
        case YOPO():
            return Recipe(on_perturbed, update=updates.yopo(spec.norm, eps, spec.step_size(eps), spec.rounds, spec.steps))
        case FreeLB():
            return Recipe(on_perturbed, update=updates.accumulate(spec.norm, eps, spec.step_size(eps), spec.steps))
        case FriendlyTraining():
            return Recipe(on_perturbed, friendly(spec.norm, eps, spec.step_size(eps), spec.steps, spec.further))
    notes = (FOLDED,) if spec.inner == "folded" else ()
    match spec:
        case PGDTraining():
            return Recipe(on_perturbed, _pgd(spec, facts), notes=notes)
        case TRADES():
            return Recipe(objectives.trades(value(spec.beta)), _pgd(spec, facts), notes=notes)
        case MART():
            return Recipe(objectives.mart(value(spec.beta), value(spec.margin)), _pgd(spec, facts), notes=notes)
        case ALP():
            return Recipe(objectives.logits_paired(value(spec.weight)), _pgd(spec, facts), notes=notes)
    assert_never(spec)


def recipe(spec: AnyDefense, facts: Facts, data: Data, surrogates: Sequence[nn.Module] = ()) -> Recipe:
    """The recipe of one defense, its defaults taken from facts about the data; `surrogates` are those of an ensemble.

    Raises:
        ValueError: the data do not admit of it, saying why.
    """
    match spec:
        case Plain():
            return Recipe(on_perturbed)
        case Noise():
            return _noise(spec, facts)
        case Mixup():
            return Recipe(objectives.mixed(spec.alpha))
        case Dropout():
            return Recipe(objectives.dropped(spec.p))
        case LabelSmoothing():
            return Recipe(objectives.smoothed(spec.share))
        case WeightPenalty():
            return Recipe(penalties.with_squares(value(spec.l2)), after=penalties.shrunk(value(spec.l1)))
        case GradientPenalty():
            return Recipe(penalties.gradient_penalty(spec.of, value(spec.weight), spec.samples))
        case LDS():
            return Recipe(smoothness.lds(spec.by, _of_spread(spec.eps, EPS, facts), spec.samples, value(spec.weight)))
        case VAT():
            return _vat(spec, facts)
        case IMSAT():
            return _imsat(spec, facts, data)
        case EnsembleTraining():
            return _ensemble(spec, facts, surrogates)
    return _adversarial(spec, facts)
