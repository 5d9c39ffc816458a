"""Every attack of the contract as a sentence of the engine."""

from typing import assert_never

from sparring.attacks.access import Decisions, GradientAccess
from sparring.attacks.engine import climb, latest, restarts
from sparring.attacks.losses import LOSSES
from sparring.attacks.parts import anywhere, ascend, backprop, begin, centre, decision, redraw
from sparring.attacks.problem import Attack, Outcome, Problem
from sparring.contract.attacks import FGSM, PGD, AttackSpec, Noise


def fgsm(spec: FGSM, eps: float) -> Attack[GradientAccess]:
    """Goodfellow et al. 2014: x' = clip(x + eps sign grad L)."""
    return climb(backprop(LOSSES[spec.loss]), ascend(eps), 1, centre, latest)


def pgd(spec: PGD, eps: float) -> Attack[GradientAccess]:
    """Madry et al. 2017: x <- P(x + alpha steepest grad L), from random starts; each row keeps its best."""
    probe, rule = backprop(LOSSES[spec.loss]), ascend(spec.step_size(eps))
    return restarts(spec.restarts, lambda r: climb(probe, rule, spec.steps, begin(spec.start, r)))


def noise(spec: Noise, eps: float) -> Attack[Decisions]:
    """Independent uniform draws from the ball."""
    return climb(decision, redraw, spec.draws - 1, anywhere)


def run(spec: AttackSpec, eps: float, target: GradientAccess, problem: Problem) -> Outcome:
    """Run one attack of the contract; it is handed exactly the access its spec declares. `eps` in units of the data."""
    match spec:
        case FGSM():
            return fgsm(spec, eps)(target, problem)
        case PGD():
            return pgd(spec, eps)(target, problem)
        case Noise():
            return noise(spec, eps)(Decisions(target), problem)
    assert_never(spec)
