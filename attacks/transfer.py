"""What an attacker does without the target's slopes: attack another model, and show the target what came of it.

Papernot et al. 2016, arXiv 1605.07277 (transfer) and 1602.02697 (a substitute, trained on the target's answers).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sparring.attacks.access import DecisionAccess, GradientAccess
from sparring.attacks.norms import Bounds
from sparring.attacks.problem import Attack, Outcome, Problem
from sparring.attacks.rows import where

_TURN = 3  # rounds after which the sign of the augmentation turns


def transfer(attack: Attack[GradientAccess], surrogates: Sequence[GradientAccess]) -> Attack[DecisionAccess]:
    """Run `attack` in full on each surrogate; the target is shown one point a row and surrogate, until one breaks it."""

    def attacked(target: DecisionAccess, problem: Problem) -> Outcome:
        none = torch.zeros_like(problem.goal.labels)
        outcome = Outcome(problem.x.clone(), none > 0, torch.full_like(problem.x.flatten(1)[:, 0], float("-inf")), none.clone(), none > 0)
        for number, surrogate in enumerate(surrogates):
            rows = torch.nonzero(~outcome.success | (not problem.stop)).flatten()
            part = problem.select(rows)
            shown = attack(surrogate, part._replace(stop=False).fork(number))
            won = target.reached(part.goal, shown.x) & part.ball.contains(shown.x) if len(rows) else shown.success
            take = ~outcome.success[rows] & (won | (number == 0))
            outcome.x[rows] = where(take, shown.x, outcome.x[rows])
            outcome.success[rows] |= won
            outcome.queries[rows] += 1
            target.tell((number + 1) / len(surrogates))
        return outcome._replace(score=outcome.success.to(outcome.score.dtype))

    return attacked


class Mean(nn.Module):
    """An ensemble: the mean of its members' logits."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        """Members map (B, …) to logits (B, K)."""
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""
        return torch.stack([member(x) for member in self.members]).mean(0)


def substitute(
    ask: Callable[[Tensor], Tensor],
    seeds: Tensor,
    rounds: int,
    step: float,
    bounds: Bounds,
    train: Callable[[Tensor, Tensor], GradientAccess],
    *,
    jacobian: bool = True,
) -> tuple[GradientAccess, Tensor]:
    """A model trained on the answers of another, and the rows asked for: seeds (S, …) and their offspring, S * 2^(rounds - 1) in all.

    Between two rounds every row x labelled c has a child x + step * sign(grad z_c(x)) under the model trained so far, the sign
    turning every three rounds (Papernot et al. 2016, eq. 5 and section 4.2); without `jacobian` the loss is climbed instead.
    `ask` gives the target's classes (B,) of rows (B, …), `train(x, classes)` a model.
    """
    x, classes = seeds, ask(seeds)
    model = train(x, classes)
    low, high = bounds or (float("-inf"), float("inf"))
    for number in range(rounds - 1):
        way = -1.0 if jacobian and number // _TURN % 2 else 1.0
        children = torch.cat([(part + way * step * slope.sign()).clamp(low, high) for part, slope in _slopes(model, x, classes, jacobian)])
        x, classes = torch.cat((x, children)), torch.cat((classes, ask(children)))
        model = train(x, classes)
    return model, x


def _slopes(model: GradientAccess, x: Tensor, classes: Tensor, jacobian: bool) -> list[tuple[Tensor, Tensor]]:
    parts = zip(torch.split(x, model.tile), torch.split(classes, model.tile), strict=True)
    return [(part, model.slope(_climbed(own, jacobian), part)[2]) for part, own in parts]


def _climbed(own: Tensor, jacobian: bool) -> Callable[[Tensor], Tensor]:
    """The logit of the class the target gave, or the loss of calling it so."""
    if jacobian:
        return lambda logits: logits.gather(1, own[:, None]).squeeze(1)
    return lambda logits: nn.functional.cross_entropy(logits, own, reduction="none")
