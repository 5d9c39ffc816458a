"""What is climbed: (logits (B, K), goal) -> (B,). The adversary always climbs; signs live here and nowhere else."""

from collections.abc import Callable

from torch import Tensor

from sparring.attacks.problem import Goal
from sparring.contract.attacks import Loss as LossName

Loss = Callable[[Tensor, Goal], Tensor]


def _split(logits: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
    """Own logit (B,) and the others (B, K) with the own one at -inf."""
    own = logits.gather(1, goal.labels[:, None]).squeeze(1)
    return own, logits.scatter(1, goal.labels[:, None], float("-inf"))


def _signed(loss: Tensor, goal: Goal) -> Tensor:
    return -loss if goal.targeted else loss


def ce(logits: Tensor, goal: Goal) -> Tensor:
    """Cross-entropy, written as the log-odds against the label: log((1 - p) / p) with p the label's probability.

    Cross-entropy is softplus of this, so its gradient has the same direction and its order is the same; but where a
    confident model's cross-entropy gradient underflows to zero in float32, this one does not.
    """
    own, others = _split(logits, goal)
    return _signed(others.logsumexp(1) - own, goal)


def margin(logits: Tensor, goal: Goal) -> Tensor:
    """Largest other logit less the label's (Carlini, Wagner 2016, 1608.04644, f6 without its floor)."""
    return goal.margin(logits)


def dlr(logits: Tensor, goal: Goal) -> Tensor:
    """Difference of logits ratio (Croce, Hein 2020, 2003.01690, eq. 6): the margin over the gap of first to third logit.

    With two classes there is no third logit and the plain margin is returned. For a targeted goal the targeted form
    (eq. 7) needs four classes; with three it divides as the untargeted one.
    """
    count = logits.shape[1]
    if count < 3:
        return goal.margin(logits)
    top = logits.topk(min(count, 4), dim=1).values
    rest = (top[:, 2] + top[:, 3]) / 2 if goal.targeted and count > 3 else top[:, 2]
    return goal.margin(logits) / (top[:, 0] - rest + 1e-12)


LOSSES: dict[LossName, Loss] = {"ce": ce, "margin": margin, "dlr": dlr}
