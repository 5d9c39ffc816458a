"""APGD for l1: the schedule, and that it breaks what PGD breaks."""

import pytest
import torch
from attacks.cases import affine, cnn, pictures, problem, target

from sparring.attacks import catalogue
from sparring.attacks.engine import climb
from sparring.attacks.losses import LOSSES
from sparring.attacks.parts import backprop, centre, outskirts
from sparring.attacks.sparse import course, inside, sparse_auto
from sparring.contract.attacks import APGD, PGD


def test_the_course_of_100_steps_is_that_of_the_paper() -> None:
    radius, fresh, due = course(100)
    assert [radius.count(wide) for wide in (3.0, 2.0, 1.0)] == [29, 30, 42]
    assert [t for t, begins in enumerate(fresh) if begins] == [29, 59]
    assert [radius[t] for t in (28, 29, 58, 59, 100)] == [3.0, 2.0, 2.0, 1.0, 1.0]
    assert all(due[t] for t in (1, 2, 29, 31))
    assert not any(due[t] for t in (0, 30, 60))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 1000])
def test_every_course_has_its_length_and_ends_inside(steps: int) -> None:
    assert [len(table) for table in course(steps)] == [steps + 1] * 3
    assert course(steps).radius[-1] == 1.0


@pytest.mark.parametrize("steps", [10, 30, 100])
def test_it_wins_just_outside_the_exact_distance_and_never_inside(steps: int) -> None:
    case = affine()
    for slack, wins in ((1e-3, True), (-1e-3, False)):
        eps = case.distance["l1"] * (1 + slack)
        outcome = catalogue.run(APGD(steps=steps), 1.0, target(case.model), problem(case.x, case.labels, "l1", eps))
        assert (outcome.success == wins).all()


def test_points_outside_the_ball_are_visited_and_never_kept() -> None:
    model, x = cnn(), pictures()
    labels = target(model).labels(x)
    asked = problem(x, labels, "l1", 1.0, (0.0, 1.0), stop=False)
    rule, keep = sparse_auto(30)
    seen = []

    def look(access, part, at, *, slope):
        seen.append(part.ball.distance(at) / part.ball.eps)
        return backprop(LOSSES["ce"])(access, part, at, slope=slope)

    outcome = climb(look, rule, 30, outskirts, keep)(target(model, 64), asked)
    assert torch.stack(seen[1:8]).max() > 2.5
    assert torch.stack(seen[20:]).max() <= 1
    assert asked.ball.contains(outcome.x).all()
    assert keep is inside


def test_it_breaks_what_pgd_breaks_and_more() -> None:
    model, x = cnn(), pictures(60)
    labels = target(model).labels(x)
    for eps in (1.0, 2.0):
        asked = problem(x, labels, "l1", eps, (0.0, 1.0))
        pgd = catalogue.run(PGD(steps=100, share=0.05), eps, target(model, 64), asked).success
        apgd = catalogue.run(APGD(steps=100), eps, target(model, 64), asked).success
        assert 0 < int(pgd.sum()) < 60
        assert int(apgd.sum()) >= int(pgd.sum())


def test_the_clean_row_is_a_start_like_another() -> None:
    case = affine()
    rule, keep = sparse_auto(20)
    eps = case.distance["l1"] * 1.001
    assert climb(backprop(LOSSES["ce"]), rule, 20, centre, keep)(target(case.model), problem(case.x, case.labels, "l1", eps)).success.all()
