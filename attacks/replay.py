"""Points that are known already, shown to the target: what broke one version of a model often breaks the next."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sparring.attacks.access import DecisionAccess
from sparring.attacks.problem import Attack, Outcome, Problem


def replay(points: Sequence[tuple[Tensor, Tensor]]) -> Attack[DecisionAccess]:
    """Show the target points (B, …) of those rows for which there (B,) bool is one; it is asked about none outside ball and bounds."""

    def attacked(target: DecisionAccess, problem: Problem) -> Outcome:
        none = torch.zeros_like(problem.goal.labels)
        x, success, queries = problem.x.clone(), none > 0, none.clone()
        for number, (point, there) in enumerate(points):
            rows = torch.nonzero(there & problem.ball.contains(point) & ~success).flatten()
            if len(rows):
                won = rows[target.reached(problem.select(rows).goal, point[rows])]
                x[won], success[won] = point[won], True
                queries[rows] += 1
            target.tell((number + 1) / len(points))
        return Outcome(x, success, success.double(), queries, none > 0)

    return attacked
