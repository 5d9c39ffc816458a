"""The engine carries what is still to come: APGD's step halving per row, and Square's random search, as mere rules."""

from typing import NamedTuple

import pytest
import torch
from attacks.cases import Spy, cnn, pictures, problem, target
from torch import Tensor, nn

from sparring.attacks import catalogue, random
from sparring.attacks.access import ScoreAccess, Scores
from sparring.attacks.engine import Rule, climb
from sparring.attacks.losses import ce
from sparring.attacks.norms import per_row
from sparring.attacks.parts import anywhere, backprop
from sparring.attacks.problem import Attack, Point, Problem
from sparring.contract.attacks import PGD


class Auto(NamedTuple):
    """APGD's state: all rows first, so that rows may leave and others take their slots."""

    previous: Tensor
    step: Tensor
    best: Tensor
    best_slope: Tensor
    best_loss: Tensor
    loss: Tensor
    rises: Tensor
    halved: Tensor
    marked_loss: Tensor


def apgd(steps: int) -> Attack:
    """Croce & Hein 2020, 2003.01690, algorithm 1: checkpoints are a table indexed by each row's own t."""
    periods = torch.zeros(steps + 1, dtype=torch.int64)
    length, at = max(1, round(0.22 * steps)), 0
    while (at := at + length) <= steps:
        periods[at] = length
        length = max(length - max(1, round(0.03 * steps)), max(1, round(0.06 * steps)))

    def init(problem: Problem, x: Tensor) -> Auto:
        lowest = x.new_full((len(x),), float("-inf"))
        none = torch.zeros(len(x), dtype=torch.int64)
        return Auto(
            x.clone(),
            2 * problem.ball.eps.to(x.dtype),
            x.clone(),
            torch.zeros_like(x),
            lowest,
            lowest.clone(),
            none,
            none > 0,
            lowest.clone(),
        )

    def step(point: Point, state: Auto, problem: Problem, t: Tensor) -> tuple[Tensor, Auto]:
        ball, x, slope = problem.ball, point.x, point.grad
        assert slope is not None
        better = point.loss > state.best_loss
        best = torch.where(per_row(better, x), x, state.best)
        best_slope = torch.where(per_row(better, x), slope, state.best_slope)
        best_loss = torch.maximum(point.loss, state.best_loss)
        rises = state.rises + ((point.loss > state.loss) & (t > 0))
        due = periods[t] > 0
        halve = due & ((rises <= 0.75 * periods[t]) | (~state.halved & (best_loss <= state.marked_loss)))
        size = torch.where(halve, state.step / 2, state.step)
        x, slope = torch.where(per_row(halve, x), best, x), torch.where(per_row(halve, x), best_slope, slope)
        previous = torch.where(per_row(halve, x), best, state.previous)
        ahead = ball.project(x + per_row(size, x) * ball.norm.steepest(slope))
        weight = per_row(torch.where(t == 0, 1.0, 0.75), x)
        moved = ball.project(x + weight * (ahead - x) + (1 - weight) * (x - previous))
        marked = torch.where(due, best_loss, state.marked_loss)
        counted = torch.where(due, 0, rises)
        return moved, Auto(x, size, best, best_slope, best_loss, point.loss, counted, torch.where(due, halve, state.halved), marked)

    return climb(backprop(ce), Rule(init, step), steps, anywhere)


class Search(NamedTuple):
    """Square's state."""

    best: Tensor
    loss: Tensor


def scores(target: ScoreAccess, problem: Problem, x: Tensor, *, slope: bool) -> Point:
    margin = problem.goal.margin(target.logits(x))
    return Point(x, margin, margin)


def square(queries: int) -> Attack:
    """Andriushchenko et al. 2019, 1912.00049, linf: a window of +-eps per channel is kept where the margin grows."""

    def propose(state: Search, problem: Problem, t: Tensor) -> Tensor:
        channels, height, width = state.best.shape[1:]
        key = random.fork(random.fork(problem.key, 5), t)
        share = 0.8 * 0.5 ** torch.floor(torch.log2(1 + t / queries * 64))
        side = torch.sqrt(share * height * width).round().clamp(1, min(height, width)).long()
        top = random.integers(random.fork(key, 0), height - side + 1)[:, None]
        left = random.integers(random.fork(key, 1), width - side + 1)[:, None]
        rows, columns = torch.arange(height), torch.arange(width)
        inside = ((rows >= top) & (rows < top + side[:, None]))[:, :, None] & ((columns >= left) & (columns < left + side[:, None]))[
            :, None, :
        ]
        sign = torch.where(random.uniforms(random.fork(key, 2), (channels, 1, 1)) < 0.5, -1.0, 1.0)
        edge = problem.ball.centre + sign * per_row(problem.ball.eps.to(sign.dtype), sign)
        return problem.ball.project(torch.where(inside[:, None], edge, state.best))

    def step(point: Point, state: Search, problem: Problem, t: Tensor) -> tuple[Tensor, Search]:
        better = point.loss > state.loss
        kept = Search(torch.where(per_row(better, point.x), point.x, state.best), torch.maximum(point.loss, state.loss))
        return propose(kept, problem, t), kept

    def init(problem: Problem, x: Tensor) -> Search:
        return Search(x.clone(), x.new_full((len(x),), float("-inf")))

    return climb(scores, Rule(init, step), queries, anywhere)


def exact() -> tuple[nn.Module, Tensor]:
    """A model whose arithmetic is exact in fp32, and rows for it."""
    generator = torch.Generator().manual_seed(4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-3, 4, parameter.shape, generator=generator))
    return model, torch.randint(0, 257, (70, 1, 4, 4), generator=generator) / 256


@pytest.mark.parametrize(("attack", "access"), [(apgd(20), "gradient"), (square(60), "score")], ids=["apgd", "square"])
def test_laws_hold_for_a_rule_of_ones_own(attack: Attack, access: str) -> None:
    model, x = exact()
    labels = target(model).labels(x)
    spy = Spy(target(model), access)
    asked = problem(x, labels, "linf", 0.125, (0.0, 1.0))
    whole = attack(spy if access == "gradient" else Scores(spy), asked)
    assert 0 < int(whole.success.sum()) < len(x), "rows must leave at different times for the refill to be seen"
    assert spy.asked == int(whole.queries.sum())
    assert asked.ball.contains(whole.x).all()
    assert torch.equal(target(model).labels(whole.x) != labels, whole.success)
    for rows in (torch.arange(69, -1, -1), torch.tensor([3]), torch.arange(20, 57)):
        part = attack(target(model, 32), asked.select(rows))
        assert torch.equal(part.x, whole.x[rows])
        assert torch.equal(part.success, whole.success[rows])


def test_apgd_breaks_what_pgd_breaks() -> None:
    """Auto steps need no tuning: at the same number of steps no fewer rows fall, give or take one."""
    model, x = cnn(), pictures(120)
    labels = target(model).labels(x)
    for eps in (0.02, 0.05, 0.1):
        asked = problem(x, labels, "linf", eps, (0.0, 1.0))
        fallen = int(apgd(40)(target(model), asked).success.sum())
        assert fallen >= int(catalogue.run(PGD(steps=40), eps, target(model), asked).success.sum()) - 1


def test_square_reaches_every_pixel() -> None:
    class Shy(nn.Module):
        """Robust to everything: the search goes its full course."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack((torch.ones(len(x)), -x.flatten(1).sum(1).abs() * 0), 1)

    x = torch.full((200, 2, 5, 7), 0.5)
    seen = torch.zeros_like(x[0], dtype=torch.bool)

    class Watch(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            seen.logical_or_(((rows - 0.5).abs() > 0.09).any(0))
            return Shy()(rows)

    start = problem(x, torch.zeros(200, dtype=torch.int64), "linf", 0.1, (0.0, 1.0))
    square(30)(target(Watch()), start)
    assert seen.all()
