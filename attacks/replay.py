"""Points that are known already, shown to the target: what broke one version of a model often breaks the next."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks.access import DecisionAccess
from sparring.attacks.problem import Attack, Outcome, Problem


class Known(NamedTuple):
    """A point each of some rows, which are fetched when their turn comes: all at once may be more than memory holds."""

    there: Tensor
    """(B,) bool: rows that have one."""
    points: Callable[[], Tensor]
    """(B, …)."""


def replay(known: Sequence[Known]) -> Attack[DecisionAccess]:
    """Show the target the points of those rows that have one, in their order; it is asked about none outside ball and bounds."""

    def attacked(target: DecisionAccess, problem: Problem) -> Outcome:
        none = torch.zeros_like(problem.goal.labels)
        x, success, queries = problem.x.clone(), none > 0, none.clone()
        for number, (there, points) in enumerate(known):
            if bool((there & ~success).any()):
                point = points()
                rows = torch.nonzero(there & problem.ball.contains(point) & ~success).flatten()
                won = rows[target.reached(problem.select(rows).goal, point[rows])] if len(rows) else rows
                x[won], success[won] = point[won], True
                queries[rows] += 1
            target.tell((number + 1) / len(known))
        return Outcome(x, success, success.double(), queries, none > 0)

    return attacked
