"""Every attack of the contract as a sentence of the engine."""

from collections.abc import Sequence
from typing import Protocol, assert_never

from torch import Tensor

from sparring.attacks.access import Decisions, GradientAccess, Scores
from sparring.attacks.apgd import auto
from sparring.attacks.cw import cw
from sparring.attacks.cw_linf import cw_linf
from sparring.attacks.ddn import ddn
from sparring.attacks.deepfool import deepfool
from sparring.attacks.diverse import diverse
from sparring.attacks.ead import ead
from sparring.attacks.engine import climb, knowing, latest, strongest
from sparring.attacks.estimates import nes, spsa
from sparring.attacks.fab import fab
from sparring.attacks.fmn import fmn
from sparring.attacks.hopskipjump import hopskipjump
from sparring.attacks.jsma import jsma
from sparring.attacks.losses import LOSSES, Loss, kl
from sparring.attacks.norms import Norm
from sparring.attacks.parts import (
    aims,
    anywhere,
    ascend,
    averaged,
    backprop,
    begin,
    centre,
    decision,
    gaussian,
    leap,
    momentum,
    outskirts,
    power,
    probing,
    raw,
    redraw,
    scattered,
    signed,
    toward,
)
from sparring.attacks.problem import Attack, Outcome, Problem
from sparring.attacks.rays import rays
from sparring.attacks.simba import simba
from sparring.attacks.sparse import sparse_auto
from sparring.attacks.sparse_rs import sparse_rs
from sparring.attacks.spherical import spherical
from sparring.attacks.square import square
from sparring.attacks.transfer import transfer
from sparring.attacks.transferable import blurred, halved, nesterov
from sparring.attacks.uap import shifted
from sparring.contract.attacks import (
    APGD,
    BIM,
    CW,
    DDN,
    DIFGSM,
    EAD,
    FAB,
    FGM,
    FGSM,
    FMN,
    JSMA,
    MIFGSM,
    NES,
    NIFGSM,
    PGD,
    RFGSM,
    SIFGSM,
    SPSA,
    TIFGSM,
    UAP,
    VAT,
    AttackSpec,
    Boundary,
    CWLinf,
    DeepFool,
    GradientAscent,
    HopSkipJump,
    Noise,
    RayS,
    Replay,
    SimBA,
    SparseRS,
    Square,
    Substitute,
    Transfer,
)
from sparring.contract.quantity import value

White = Attack[GradientAccess]


def informed(attack: White, loss: Loss) -> White:
    """Losses that compare with the clean row's logits need them looked up first."""
    return knowing(attack) if loss in (LOSSES["kl"], LOSSES["difference"]) else attack


def unlabelled(attack: White) -> White:
    """The model's own predictions on the clean rows take the place of the labels. One query a row."""

    def blind(target: GradientAccess, problem: Problem) -> Outcome:
        goal = problem.goal._replace(labels=target.labels(problem.x))
        outcome = attack(target, problem._replace(goal=goal))
        return outcome._replace(queries=outcome.queries + 1)

    return blind


def one_step(spec: FGSM | FGM) -> White:
    """Goodfellow et al. 2014: x' = clip(x + eps sign grad L); FGM likewise in other norms."""
    loss = LOSSES[spec.loss]
    attack = informed(climb(backprop(loss), leap, 1, centre, latest), loss)
    return unlabelled(attack) if isinstance(spec, FGSM) and spec.labels == "predicted" else attack


def ascent(spec: GradientAscent) -> White:
    """Ascent along the raw gradient."""
    loss = LOSSES[spec.loss]
    return informed(climb(backprop(loss), raw(value(spec.rate)), spec.steps, centre), loss)


def rfgsm(spec: RFGSM, eps: float) -> White:
    """Tramer et al. 2017: x1 = x + a sign N(0, I); x' = x1 + (eps - a) sign grad L(x1)."""
    loss = LOSSES[spec.loss]
    return informed(climb(backprop(loss), ascend(eps * (1 - spec.share)), 1, signed(spec.share)), loss)


def bim(spec: BIM, eps: float) -> White:
    """Kurakin et al. 2016: signed steps from the clean row."""
    loss = LOSSES[spec.loss]
    return informed(climb(backprop(loss), ascend(spec.step_size(eps)), spec.steps, centre), loss)


def mifgsm(spec: MIFGSM, eps: float) -> White:
    """Dong et al. 2017, and those who take the gradient elsewhere: through random transforms, ahead, at halves, of shifts."""
    loss = LOSSES[spec.loss]
    probe, rule = backprop(loss), momentum(spec.step_size(eps), value(spec.decay))
    match spec:
        case DIFGSM():
            probe = diverse(loss, spec.diversity, spec.shrink)
        case SIFGSM():
            probe = halved(loss, spec.copies)
        case TIFGSM():
            probe = blurred(probe, spec.reach)
        case NIFGSM():
            rule = nesterov(spec.step_size(eps), value(spec.decay), spec.steps)
    return informed(climb(probe, rule, spec.steps, centre), loss)


def pgd(spec: PGD, eps: float) -> White:
    """Madry et al. 2017: x <- P(x + alpha steepest grad L), from random starts; each row keeps its best."""
    loss = LOSSES[spec.loss]
    rule = ascend(spec.step_size(eps), spec.share)
    attack = climb(averaged(backprop(loss), spec.samples), rule, spec.steps, begin(spec.start), tries=spec.restarts)
    attack = informed(attack, loss)
    return unlabelled(attack) if spec.labels == "predicted" else attack


def apgd(spec: APGD) -> White:
    """Croce, Hein 2020, on each target if there are any: first every target once, then with the next restart."""
    loss = LOSSES[spec.loss]

    def attack(target: GradientAccess, problem: Problem) -> Outcome:
        probe = averaged(backprop(loss), spec.samples)
        rule, keep = sparse_auto(spec.steps) if problem.ball.norm.sparse else (auto(spec.steps), strongest)
        targets = aims(spec.targets, problem)
        if not targets:
            return climb(probe, rule, spec.steps, outskirts, keep, tries=spec.restarts)(target, problem)
        return climb(probe, rule, spec.steps, outskirts, keep, tries=spec.restarts * targets, vary=toward(targets))(target, problem)

    return knowing(attack) if spec.targets else informed(attack, loss)


def vat(spec: VAT) -> White:
    """Miyato et al. 2017: the whole budget along the direction in which the prediction moves most."""
    xi = value(spec.xi)
    return knowing(climb(backprop(kl), power(spec.iterations, xi), spec.iterations, probing(xi), latest))


def noise(spec: Noise) -> Attack[Decisions]:
    """Independent draws from the ball."""
    if spec.distribution == "gaussian":
        return climb(decision, gaussian, spec.draws - 1, scattered)
    return climb(decision, redraw, spec.draws - 1, anywhere)


class School(Protocol):
    """What an attacker learnt before the first row was attacked."""

    def surrogates(self, spec: Transfer | Substitute) -> Sequence[GradientAccess]:
        """The models that it has beside the target, for an attack that uses such."""
        ...

    def universal(self, spec: UAP, norm: Norm, eps: float) -> Tensor:
        """The perturbation (…) that it has fitted under a threat."""
        ...


def _taught(spec: AttackSpec, school: School | None) -> School:
    if school is None:
        raise ValueError(f"{spec.kind} needs what was learnt before the attack")
    return school


def shown(spec: Transfer | Substitute, eps: float, surrogates: Sequence[GradientAccess]) -> Attack[Decisions]:
    """A white-box attack on other models, and what came of it shown to the target."""

    def white(target: GradientAccess, problem: Problem) -> Outcome:
        return run(spec.attack, eps, target, problem)

    return transfer(white, surrogates)


def run(spec: AttackSpec, eps: float, target: GradientAccess, problem: Problem, school: School | None = None) -> Outcome:
    """Run one attack of the contract; it is handed exactly the access its spec declares. `eps` in units of the data."""
    match spec:
        case Replay():
            raise ValueError("replay is handed its points by whoever has them")
        case Transfer() | Substitute():
            return shown(spec, eps, _taught(spec, school).surrogates(spec))(Decisions(target), problem)
        case UAP():
            return shifted(_taught(spec, school).universal(spec, problem.ball.norm, eps))(target, problem)
        case Noise():
            return noise(spec)(Decisions(target), problem)
        case Square():
            return square(spec)(Scores(target), problem)
        case SparseRS():
            return sparse_rs(spec)(Scores(target), problem)
        case NES():
            return nes(spec, eps)(Scores(target), problem)
        case SPSA():
            return spsa(spec, eps)(Scores(target), problem)
        case SimBA():
            return simba(spec)(Scores(target), problem)
        case Boundary():
            return spherical(spec)(Decisions(target), problem)
        case HopSkipJump():
            return hopskipjump(spec)(Decisions(target), problem)
        case RayS():
            return rays(spec)(Decisions(target), problem)
        case FGSM() | FGM():
            return one_step(spec)(target, problem)
        case RFGSM():
            return rfgsm(spec, eps)(target, problem)
        case GradientAscent():
            return ascent(spec)(target, problem)
        case BIM():
            return bim(spec, eps)(target, problem)
        case MIFGSM():  # and those made of it
            return mifgsm(spec, eps)(target, problem)
        case PGD():
            return pgd(spec, eps)(target, problem)
        case APGD():
            return apgd(spec)(target, problem)
        case VAT():
            return vat(spec)(target, problem)
        case DeepFool():
            return deepfool(spec)(target, problem)
        case DDN():
            return ddn(spec)(target, problem)
        case FMN():
            return fmn(spec)(target, problem)
        case CW():
            return cw(spec)(target, problem)
        case CWLinf():
            return cw_linf(spec)(target, problem)
        case JSMA():
            return jsma(spec)(target, problem)
        case EAD():
            return ead(spec)(target, problem)
        case FAB():
            return fab(spec)(target, problem)
    assert_never(spec)
