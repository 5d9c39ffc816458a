"""What is climbed: (logits (B, K), goal) -> (B,). The adversary always climbs; signs live here and nowhere else."""

from collections.abc import Callable

import torch
from torch import Tensor

from sparring.attacks.problem import Goal
from sparring.contract.attacks import Loss as LossName

Loss = Callable[[Tensor, Goal], Tensor]


def _signed(loss: Tensor, goal: Goal) -> Tensor:
    return -loss if goal.targeted else loss


def _gap(logits: Tensor, goal: Goal) -> Tensor:
    """How far the class an attack singles out is ahead of the label; the margin where it singles out none."""
    if goal.toward is None:
        return goal.margin(logits)
    return difference(logits, goal)


def ce(logits: Tensor, goal: Goal) -> Tensor:
    """Cross-entropy, written as the log-odds against the label: log((1 - p) / p) with p the label's probability.

    Cross-entropy is softplus of this, so its gradient has the same direction and its order is the same; but where a
    confident model's cross-entropy gradient underflows to zero in float32, this one does not.
    """
    own = logits.gather(1, goal.labels[:, None]).squeeze(1)
    others = logits.scatter(1, goal.labels[:, None], float("-inf"))
    return _signed(others.logsumexp(1) - own, goal)


def margin(logits: Tensor, goal: Goal) -> Tensor:
    """Largest other logit less the label's (Carlini, Wagner 2016, 1608.04644, f6 without its floor)."""
    return goal.margin(logits)


def difference(logits: Tensor, goal: Goal) -> Tensor:
    """One logit less another: of the class singled out, or wanted, less that of the label, or of the clean prediction.

    Without either of the two it is the margin.
    """
    if goal.toward is not None:
        up, down = goal.toward, goal.labels
    elif goal.targeted and goal.reference is not None:
        up, down = goal.labels, goal.reference.argmax(1)
    else:
        return goal.margin(logits)
    return (logits.gather(1, up[:, None]) - logits.gather(1, down[:, None])).squeeze(1)


def dlr(logits: Tensor, goal: Goal) -> Tensor:
    """Difference of logits ratio (Croce, Hein 2020, 2003.01690, eq. 6): the margin over the gap of first to third logit.

    With a class to aim at it is the targeted form (eq. 7), the gap taken to the mean of third and fourth. With two classes
    there is no third logit and the plain margin is returned; the targeted form divides as the other one with three.
    """
    count = logits.shape[1]
    if count < 3:
        return _gap(logits, goal)
    top = logits.topk(min(count, 4), dim=1).values
    aimed = goal.targeted or goal.toward is not None
    rest = (top[:, 2] + top[:, 3]) / 2 if aimed and count > 3 else top[:, 2]
    return _gap(logits, goal) / (top[:, 0] - rest + 1e-12)


def scaled(logits: Tensor, goal: Goal) -> Tensor:
    """The log-odds of `ce` after each row's logits are divided by the gap between its largest and its mean.

    The gap is held constant for the slope. Neither the size of the logits nor their number of digits changes the direction.
    """
    gap = (logits.amax(1) - logits.mean(1)).detach()
    return ce(logits / torch.where(gap > 0, gap, torch.ones_like(gap))[:, None], goal)


def kl(logits: Tensor, goal: Goal) -> Tensor:
    """KL(p(x0) || p(x)) in nats: how far the prediction has moved from the clean one. Its slope is zero at x0 itself."""
    assert goal.reference is not None, "the clean logits are needed"
    clean = goal.reference.log_softmax(1)
    return (clean.exp() * (clean - logits.log_softmax(1))).sum(1)


LOSSES: dict[LossName, Loss] = {"ce": ce, "margin": margin, "dlr": dlr, "difference": difference, "scaled": scaled, "kl": kl}
