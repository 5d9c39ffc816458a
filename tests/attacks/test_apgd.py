"""APGD beside a plain loop, one row at a time; its checkpoints, when it halves its step, and the order of its targets."""

from collections.abc import Callable

import pytest
import torch
from attacks.cases import Spy, cnn, pictures, problem, target
from torch import Tensor, nn

from sparring.attacks import catalogue
from sparring.attacks.apgd import Auto, auto, checkpoints
from sparring.attacks.engine import climb, latest, strongest
from sparring.attacks.losses import LOSSES
from sparring.attacks.norms import Ball
from sparring.attacks.parts import aims, backprop, outskirts, toward
from sparring.attacks.problem import Goal, Point, Problem
from sparring.attacks.sparse import sparse_auto
from sparring.contract.attacks import APGD


def ends(steps: int) -> list[int]:
    return [t for t, length in enumerate(checkpoints(steps)) if length]


def test_the_checkpoints_of_100_steps_are_those_of_the_paper() -> None:
    """p_0 = 0, p_1 = .22, p_{j+1} = p_j + max(p_j - p_{j-1} - .03, .06)."""
    assert ends(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert [checkpoints(100)[t] for t in ends(100)] == [22, 19, 16, 13, 10, 7, 6, 6]


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 33, 50, 1000])
def test_periods_fill_the_course_and_never_vanish(steps: int) -> None:
    table = checkpoints(steps)
    lengths = [table[t] for t in ends(steps)]
    assert len(table) == steps + 1
    assert [sum(lengths[: at + 1]) for at in range(len(lengths))] == ends(steps)
    assert lengths == sorted(lengths, reverse=True)
    assert min(lengths) >= max(int(0.06 * steps), 1)
    assert steps - ends(steps)[-1] < lengths[-1]


class Trace:
    """A probe that remembers every look; rows keep their places."""

    def __init__(self, loss: str) -> None:
        self.look, self.points = backprop(LOSSES[loss]), []

    def __call__(self, access, part: Problem, x: Tensor, *, slope: bool) -> Point:
        self.points.append(self.look(access, part, x, slope=slope))
        return self.points[-1]


def row_of(ball: Ball, row: int) -> Ball:
    one = slice(row, row + 1)
    return Ball(ball.centre[one], ball.eps[one], ball.low[one], ball.high[one], ball.norm)


def plainly(points: list[Point], ball: Ball, steps: int) -> tuple[list[Tensor], int]:
    """Algorithm 1 of one row, from what it saw at each point: the points it should have gone to, and how often the step was halved."""
    ends, length, at = {}, int(0.22 * steps), 0
    while (at := at + length) <= steps:
        ends[at] = length
        length = max(length - int(0.03 * steps), int(0.06 * steps))
    x, slope, previous = points[0].x, points[0].grad, None
    losses = [float(point.loss) for point in points]
    step, halved, marked = 2 * float(ball.eps), False, None
    gone, halvings = [x], 0
    for k in range(steps):
        best = max(range(k + 1), key=lambda j: (losses[j], -j))
        if k in ends:
            rises = sum(losses[j] > losses[j - 1] for j in range(k - ends[k] + 1, k + 1))
            stalled = not halved and marked is not None and losses[best] <= marked
            halved = rises <= 0.75 * ends[k] or stalled
            marked = losses[best]
            if halved:
                halvings += 1
                step /= 2
                x, slope = points[best].x, points[best].grad
        ahead = ball.project(x + step * ball.steepest(slope, x))
        weight = 1.0 if previous is None else 0.75
        gone.append(ball.project(x + weight * (ahead - x) + (1 - weight) * (x - (x if previous is None else previous))))
        previous = x
        x, slope = points[k + 1].x, points[k + 1].grad
    return gone, halvings


def traced(norm: str, loss: str, steps: int, eps: float, rows: int = 12):
    model, x = cnn(), pictures(rows)
    labels = target(model).labels(x)
    asked = problem(x, labels, norm, eps, (0.0, 1.0), stop=False)
    look = Trace(loss)
    rule, keep = (auto(steps), strongest) if norm != "l1" else sparse_auto(steps)
    outcome = climb(look, rule, steps, outskirts, keep)(target(model), asked)
    return asked, look.points, outcome


@pytest.mark.parametrize(("norm", "eps", "slack"), [("linf", 0.08, 0.0), ("l2", 0.6, 2e-6)])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_each_row_goes_where_a_plain_loop_goes(norm: str, eps: float, slack: float, loss: str) -> None:
    asked, points, outcome = traced(norm, loss, 40, eps)
    halvings = []
    for row in range(len(asked.x)):
        one = slice(row, row + 1)
        seen = [Point(p.x[one], p.loss[one], p.margin[one], p.grad[one] if p.grad is not None else None) for p in points]
        wanted, often = plainly(seen, row_of(asked.ball, row), 40)
        for k, there in enumerate(wanted):
            assert (there - seen[k].x).abs().max() <= slack, f"row {row}, step {k}"
        won = [k for k, point in enumerate(seen) if point.margin > 0]
        kept = max(won, key=lambda k: float(seen[k].margin)) if won else max(range(41), key=lambda k: float(seen[k].loss))
        assert torch.equal(outcome.x[row], seen[kept].x[0])
        halvings.append(often)
    assert 0 < min(halvings) < max(halvings)
    assert 0 < int(outcome.success.sum()) <= len(asked.x)


def sparsely(points: list[Point], ball: Ball, steps: int) -> list[Tensor]:
    """The l1 search of one row: three runs in smaller and smaller balls, each from the best point of the one before."""
    size, gone, at = ball.centre.numel(), [points[0].x], 0
    share, moved = 0.2, size
    lengths = [int(0.3 * steps), int(0.3 * steps)]
    lengths.append(steps + 1 - sum(lengths))
    for phase, (wide, length) in enumerate(zip((3, 2, 1), lengths, strict=True)):
        inner, step = ball._replace(eps=ball.eps * wide), 1.0
        for k in range(length):
            run = range(at - k, at + 1)
            best = max(run, key=lambda j: (float(points[j].loss), -j))
            last = phase == 2 and k == length - 1
            if k == length - 1 and not last:
                inner = ball._replace(eps=ball.eps * (2 - phase))
                gone.append(inner.project(points[best].x))
                moved = int((gone[-1] != ball.centre).sum())
                share = moved / size / 1.5
            elif not last:
                here = points[at]
                if k > 0 and k % max(int(0.04 * length), 1) == 0:
                    now = int((points[best].x != ball.centre).sum())
                    if now < 0.95 * moved:
                        step, here = 1.0, points[best]
                    else:
                        step = max(step / 1.5, 0.1)
                    share, moved = now / size / 1.5, now
                reach = step * float(inner.eps)
                gone.append(inner.project(here.x + reach * ball.steepest(here.grad, here.x, share)))
            at += 1
    return gone


def test_in_l1_each_row_goes_where_a_plain_loop_goes() -> None:
    asked, points, _ = traced("l1", "ce", 60, 2.0)
    shares = set()
    for row in range(len(asked.x)):
        one = slice(row, row + 1)
        seen = [Point(p.x[one], p.loss[one], p.margin[one], p.grad[one] if p.grad is not None else None) for p in points]
        for k, there in enumerate(sparsely(seen, row_of(asked.ball, row), 60)):
            assert (there - seen[k].x).abs().max() <= 2e-6, f"row {row}, step {k}"
        shares |= {int((point.x != asked.x[one]).sum()) for point in seen}
    assert min(shares) < 12, "steps became sparse"


def driven(losses: Tensor, steps: int) -> list[tuple[Tensor, Auto]]:
    """The rule fed with losses (T, B) that no model has; entry t is what it made of visit t."""
    rows = losses.shape[1]
    asked = problem(torch.zeros(rows, 1), torch.zeros(rows, dtype=torch.int64), "linf", 1.0, None)
    rule = auto(steps)
    x = torch.full((rows, 1), 0.0)
    state, made = rule.init(asked, x), []
    for t, loss in enumerate(losses):
        grad = torch.full((rows, 1), 1.0 if t % 2 else -1.0)
        x, state = rule.step(Point(x, loss, loss, grad), state, asked, torch.full((rows,), t))
        made.append((x, state))
    return made


def test_a_step_is_halved_where_three_quarters_of_the_moves_or_fewer_rose() -> None:
    """The first period of 100 steps has 22 moves: 17 rises go on, 16 do not."""
    losses = torch.zeros(23, 4)
    for row, rises in enumerate((22, 17, 16, 0)):
        losses[1:, row] = torch.where(torch.arange(22) < rises, 1.0, -1.0).cumsum(0)
    made = driven(losses, 100)
    assert all((state.step == 2).all() for _, state in made[:22])
    assert made[22][1].step.tolist() == [2.0, 2.0, 1.0, 1.0]
    assert made[22][1].halved.tolist() == [False, False, True, True]


def test_a_step_is_halved_where_the_best_has_stalled_unless_it_was_halved_just_before() -> None:
    """Periods of 22, 19 and 16 moves; the dives of rows 1 and 2 leave many rises and no better best."""
    rising = torch.arange(58.0)
    diving = rising.clone()
    diving[23:] -= 100  # from the second period on all moves but one rise, far below the best
    falling_first = diving.clone()
    falling_first[:23] = -torch.arange(23.0) + 200
    made = driven(torch.stack((rising, diving, falling_first), 1), 100)
    assert made[22][1].step.tolist() == [2.0, 2.0, 1.0], "only the third has not risen"
    assert made[41][1].step.tolist() == [2.0, 1.0, 1.0], "the second has stalled; the third was halved at the last checkpoint"
    assert made[57][1].step.tolist() == [2.0, 1.0, 0.5], "now it is the third's turn, and the second's was the last one"


def test_where_a_step_is_halved_the_row_goes_on_from_its_best_point() -> None:
    losses = torch.zeros(23, 2)
    losses[:, 0] = torch.arange(23.0)
    losses[5, 1] = 9.0
    made = driven(losses, 100)
    best = made[4][0][1]  # the point of visit 5
    state = made[22][1]
    assert torch.equal(state.previous[1], best)
    assert torch.equal(state.best[1], best)
    assert not torch.equal(state.previous[0], best)


def test_targets_are_the_classes_that_score_highest_on_the_clean_row_beside_the_label() -> None:
    logits = torch.tensor([[5.0, 1.0, 3.0, 2.0, 4.0], [0.0, 9.0, 8.0, 7.0, 6.0], [3.0, 3.0, 3.0, 3.0, 3.0]])
    labels = torch.tensor([0, 0, 2])
    asked = problem(torch.zeros(3, 2), labels, "linf", 0.1)._replace(goal=Goal(labels, reference=logits))
    aimed = [toward(3)(asked._replace(attempt=torch.full((3,), attempt))).goal.toward.tolist() for attempt in range(6)]
    assert list(zip(*aimed, strict=True)) == [(4, 2, 3) * 2, (1, 2, 3) * 2, (0, 1, 3) * 2]
    assert aims(3, asked) == 3
    assert aims(9, asked) == 4
    assert aims(3, asked._replace(goal=Goal(labels))) == 0
    assert aims(3, asked._replace(goal=Goal(labels, targeted=True, reference=logits))) == 0


class Aims(Spy):
    """Finds out at each slope which class is aimed at: the one whose logit the loss rises with."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(target(model, tile=1), "gradient")
        self.seen: list[int] = []

    def slope(self, loss: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.seen.append(int(torch.stack([loss(each[None]) for each in torch.eye(5)]).argmax()))
        return super().slope(loss, x)


@pytest.mark.parametrize("restarts", [1, 2])
def test_every_target_is_tried_once_before_the_next_restart(restarts: int) -> None:
    model, x = cnn(), pictures(1)
    ranked = target(model).logits(x).argsort(descending=True)[0].tolist()
    spy, spec = Aims(model), APGD(steps=3, loss="difference", targets=3, restarts=restarts)
    asked = problem(x, torch.tensor(ranked[:1]), "linf", 1e-6, (0.0, 1.0))
    outcome = catalogue.run(spec, 1e-6, spy, asked)
    assert spy.seen == [each for each in ranked[1:4] for _ in range(3)] * restarts
    assert outcome.queries.tolist() == [1 + 3 * 4 * restarts]


def test_what_is_visited_last_is_scored_as_well() -> None:
    asked, points, outcome = traced("linf", "ce", 10, 0.05)
    assert len(points) == 11
    assert points[-1].grad is None
    model = target(cnn())
    rule = climb(backprop(LOSSES["ce"]), auto(10), 10, outskirts, latest)
    assert torch.equal(rule(model, asked).x, points[-1].x)
    assert (outcome.queries >= 11).all()
