"""The measurements: made while the model is at hand, on rows that are right, deterministic, each at a price that is known ahead."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sparring.attacks import catalogue, random
from sparring.attacks.access import GradientAccess, Target
from sparring.attacks.apgd import auto
from sparring.attacks.engine import climb, strongest
from sparring.attacks.losses import LOSSES, Loss, ce, dlr, margin
from sparring.attacks.norms import ball
from sparring.attacks.parts import anywhere, ascend, backprop, begin, outskirts
from sparring.attacks.problem import Attack, Goal, Problem, problem
from sparring.attacks.sparse import sparse_auto
from sparring.attacks.square import square
from sparring.contract.attacks import APGD, BIM, DIFGSM, FGM, FGSM, MIFGSM, PGD, AttackSpec, Square
from sparring.contract.threat import Norm
from sparring.workers.trust.seen import Asked, Course, Longer, Scale, Slopes, Tenfold, Tremor, Whole
from sparring.workers.trust.watch import Watch

STEPS = 20
"""Of ascents that are the checks' own, within a threat."""
FAR, TRIES = 10, 2
"""Steps and starts of the one that may go anywhere."""
DIRECTIONS = 10
"""Random points about each row."""
QUERIES = 300
"""Of the search without gradients, for each row."""
LATE = 10
"""Steps at the end of an ascent in which it should not rise any more; of a short one a quarter."""
_TREMOR, _LONGER, _TENFOLD, _ASKED, _COURSE, _WHOLE = range(20, 26)  # streams of randomness

Iterated = PGD | APGD


class Stand(NamedTuple):
    """What is measured on: rows that are right before any attack, under one threat of radius `eps`."""

    target: Target
    problem: Problem
    eps: float
    standing: Tensor
    """(B,) bool: rows that no attack of the evaluation broke."""

    @property
    def left(self) -> Problem:
        """The rows that stood."""
        return self.problem.select(torch.nonzero(self.standing).flatten())


def main_attack(attacks: tuple[AttackSpec, ...], norm: Norm) -> Iterated | None:
    """The ascent to watch: of PGD and APGD the one with the most steps, else one like the iterated attack there is, else PGD.

    None where no attack uses a gradient, or where neither is defined for the norm.
    """
    known = [attack for attack in attacks if isinstance(attack, (PGD, APGD))]
    like = [attack for attack in attacks if isinstance(attack, (BIM, MIFGSM, DIFGSM))]
    if norm not in PGD.norms or not any(attack.access == "gradient" for attack in attacks):
        return None
    if not known:
        return PGD(steps=like[0].steps, alpha=like[0].alpha, start="clean") if like else PGD(steps=STEPS)
    chosen = max(known, key=lambda attack: (attack.steps, isinstance(attack, APGD) and not attack.targets))
    plain = {"targets": 0} if isinstance(chosen, APGD) else {"labels": "true"}
    return chosen.model_copy(update={**plain, "restarts": 1, "loss": "ce" if chosen.loss in ("kl", "difference") else chosen.loss})


def slopes(target: Target, goal: Goal, x: Tensor) -> Slopes:
    """F1: whether a gradient reaches the input x (B, …) at all (Carlini et al. 2019, 1902.06705; AutoAttack asks for both losses too)."""
    softmax: Loss = lambda z, goal: cross_entropy(z.float(), goal.labels, reduction="none")  # noqa: E731  # one of a row of three

    def flat(loss: Loss) -> Tensor:
        parts = torch.split(torch.arange(len(x), device=x.device), target.tile)
        grads = [target.slope(lambda z, own=own: loss(z, Goal(goal.labels[own])), x[own])[2] for own in parts]  # type: ignore[misc]
        return torch.cat(grads).flatten(1).abs().amax(1) == 0

    none, saturated = flat(ce) & flat(dlr), flat(softmax)
    return Slopes(rows=len(x), flat=int(none.sum()), saturated=int((saturated & ~none).sum()))


def scale(target: Target, x: Tensor) -> Scale:
    """F3: how far apart the scores are, and how many of float32's seven digits tell the first two apart."""
    scores = target.verdict(x).float()
    first, second = scores.topk(2, dim=1).values.unbind(1)
    size = scores.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny)
    return Scale(rows=len(x), spread=float((scores.amax(1) - scores.amin(1)).median()), share=float(((first - second) / size).median()))


def whole(target: Target, goal: Goal, x: Tensor, bounds: tuple[float, float] | None, key: Tensor) -> Whole:
    """F8: nothing should stand where the attacker may go anywhere (Pintor et al. 2021, indicator 6), or as far as the data go."""
    low, high = bounds or (float(x.min()), float(x.max()))
    area = ball("linf", x, x.new_full((len(x),), high - low, dtype=torch.float64), bounds)
    attack = climb(backprop(margin), ascend(2.5 * (high - low) / FAR), FAR, anywhere, tries=TRIES)
    outcome = attack(target, problem(goal, area, random.fork(key, _WHOLE)))
    return Whole(rows=len(x), standing=int((~outcome.success).sum()), eps=high - low)


def tremor(stand: Stand) -> Tremor:
    """F9: the margin at random points of half the radius; one that jumps about has slopes that say little (Pintor, indicator 2)."""
    area, goal = stand.problem.ball, stand.problem.goal
    near = area.within(area.eps / 2)
    before = goal.margin(stand.target.logits(stand.problem.x))
    changes = []
    for at in range(DIRECTIONS):
        x = near.sample(random.fork(random.fork(stand.problem.key, _TREMOR), at))
        after = goal.margin(stand.target.logits(x))
        changes.append(((after - before).abs() / before.abs().clamp_min(1e-12)).clamp(max=1).nan_to_num(1))
    return Tremor(rows=len(before), directions=DIRECTIONS * len(before), change=float(torch.stack(changes).mean()))


def course(stand: Stand, spec: Iterated) -> Course:
    """F5, F6, F7, F11: the attack watched to its end, and a single step beside it."""
    asked = stand.problem._replace(stop=False).fork(_COURSE)
    rows = len(asked.key)
    watch = Watch(backprop(LOSSES[spec.loss]), rows, spec.steps + 1, asked.key.device)
    outcome = _ascent(spec, stand, watch)(stand.target, asked)
    judged = stand.target.verdict(outcome.x)
    won = outcome.success & asked.goal.reached(judged)
    single = _single(stand)
    last = LATE if spec.steps >= 4 * LATE else max(1, spec.steps // 4)
    return Course(
        attack=spec.kind,
        rows=rows,
        steps=spec.steps,
        last=last,
        standing=int((~won).sum()),
        rising=int((watch.rising(last) & ~won).sum()),
        silent=int((watch.broken & ~won).sum()),
        outside=int((~asked.ball.contains(outcome.x)).sum()),
        faulty=int(outcome.faulty.sum()),
        disputed=int((stand.target.logits(outcome.x).argmax(1) != judged.argmax(1)).sum()),
        single=int(single.sum()),
        several=int(won.sum()),
        single_alone=int((single & ~won).sum()),
    )


def _ascent(spec: Iterated, stand: Stand, probe: Watch) -> Attack[GradientAccess]:
    """The attack, its probe exchanged."""
    if isinstance(spec, PGD):
        return climb(probe, ascend(spec.step_size(stand.eps), spec.share), spec.steps, begin(spec.start))
    sparse = stand.problem.ball.norm.sparse
    rule, keep = sparse_auto(spec.steps) if sparse else (auto(spec.steps), strongest)
    return climb(probe, rule, spec.steps, outskirts, keep)


def _single(stand: Stand) -> Tensor:
    """(B,) bool: rows that one step of the whole size breaks."""
    spec = FGM() if stand.problem.ball.norm.sparse else FGSM()
    outcome = catalogue.one_step(spec)(stand.target, stand.problem)
    return outcome.success


def longer(stand: Stand, spec: Iterated) -> Longer:
    """F6: twice the steps from another start, on the rows that stood."""
    more = spec.model_copy(update={"steps": 2 * spec.steps, **({"start": "random"} if isinstance(spec, PGD) else {})})
    asked = stand.left.fork(_LONGER)
    outcome = catalogue.run(more, stand.eps, stand.target, asked)
    return Longer(attack=spec.kind, rows=len(asked.key), fell=int(outcome.success.sum()))


def tenfold(stand: Stand) -> Tenfold:
    """F13: an attack should not care for the unit of the scores."""

    def broken(size: float) -> int:
        loss: Loss = lambda z, goal: ce(size * z, goal)  # noqa: E731  # a partial application from the wrong end
        attack = climb(backprop(loss), ascend(2.5 * stand.eps / STEPS), STEPS, anywhere)
        return int(attack(stand.target, stand.problem.fork(_TENFOLD)).success.sum())

    return Tenfold(rows=len(stand.problem.key), plain=broken(1), tenfold=broken(10))


def asked(stand: Stand) -> Asked:
    """F4: a short search that needs no gradient, on the rows that stood."""
    given = stand.left.fork(_ASKED)
    outcome = square(Square(queries=QUERIES))(stand.target, given)
    return Asked(rows=len(given.key), queries=QUERIES, fell=int(outcome.success.sum()))
