"""Points that are known are shown in their order, and fetched only where one is needed."""

import torch
from attacks.cases import problem, target
from torch import Tensor, nn

from sparring.attacks.access import Decisions
from sparring.attacks.replay import Known, replay


class Sign(nn.Module):
    """Class 1 above 0."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((torch.zeros_like(x), x), 1)


def test_what_is_known_is_fetched_when_its_turn_comes_and_only_for_rows_that_stand() -> None:
    fetched: list[float] = []

    def known(value: float, *there: bool) -> Known:
        def points() -> Tensor:
            fetched.append(value)
            return torch.full((3, 1), value)

        return Known(torch.tensor(there), points)

    shown = (
        *(known(0.5, True, False, False), known(0.6, True, False, False), known(-0.5, False, True, False)),
        *(known(9.0, False, True, False), known(0.7, False, True, False)),
    )
    asked = problem(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), "linf", 1.0)
    outcome = replay(shown)(Decisions(target(Sign())), asked)
    assert fetched == [0.5, -0.5, 9.0, 0.7]
    assert outcome.success.tolist() == [True, True, False]
    assert outcome.queries.tolist() == [1, 2, 0], "nobody asks about a point outside the ball"
    assert torch.equal(outcome.x, torch.tensor([[0.5], [0.7], [0.0]]))
