"""An attack watched from inside: what its loss was at every visit, and which rows were broken on the way."""

import torch
from torch import Tensor

from sparring.attacks.access import GradientAccess
from sparring.attacks.engine import Probe
from sparring.attacks.problem import Point, Problem


class Watch:
    """A probe that looks through another one and writes down what it saw, row by row. For one try of each row."""

    def __init__(self, probe: Probe[GradientAccess], rows: int, visits: int, device: torch.device) -> None:
        """Every row is visited `visits` times at most."""
        self._probe = probe
        self._seen = torch.zeros(rows, dtype=torch.int64, device=device)
        self.losses = torch.full((rows, visits), float("-inf"), device=device)
        """(rows, visits): of each visit in its order."""
        self.broken = torch.zeros(rows, dtype=torch.bool, device=device)
        """(rows,): the judge was fooled at some visited point of ball and bounds."""

    def __call__(self, target: GradientAccess, problem: Problem, x: Tensor, *, slope: bool) -> Point:
        """Visit x (B, …)."""
        point = self._probe(target, problem, x, slope=slope)
        assert problem.name is not None, "the loop names its tries"
        row = problem.name
        self.losses[row, self._seen[row]] = point.loss.to(self.losses.dtype)
        self._seen[row] += 1
        claimed = torch.nonzero((point.margin > 0) & problem.ball.contains(x) & ~self.broken[row]).flatten()
        if len(claimed):
            self.broken[row[claimed]] = target.reached(problem.select(claimed).goal, x[claimed])
        return point

    def rising(self, last: int, share: float = 0.05) -> Tensor:
        """(rows,): more than this share of the loss's whole rise came in the last steps (Pintor et al. 2021, 2106.09947, indicator 4)."""
        best = self.losses.cummax(1).values
        whole, late = best[:, -1] - best[:, 0], best[:, -1] - best[:, -1 - last]
        return (whole > 0) & (late > share * whole)
