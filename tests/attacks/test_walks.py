"""Walks along the boundary end at the distances that are known on paper, and ask no more than they may."""

import pytest
import torch
from attacks.cases import Spy, affine, cnn, pictures, problem, target
from torch import Tensor, nn

from sparring.attacks import catalogue
from sparring.attacks.access import Decisions
from sparring.attacks.hopskipjump import leap, normal
from sparring.attacks.problem import Outcome, Problem
from sparring.attacks.walks import Trail, approach, begin
from sparring.contract.attacks import AttackSpec, Boundary, HopSkipJump, RayS

INF = float("inf")
CLOSE = [
    pytest.param(HopSkipJump(queries=1000, probes=20), "l2", 0.04, id="hopskipjump-l2"),
    pytest.param(HopSkipJump(queries=1000, probes=20), "linf", 0.15, id="hopskipjump-linf"),
    pytest.param(Boundary(queries=1000), "l2", 0.02, id="boundary"),
    pytest.param(RayS(queries=300), "linf", 1.5e-3, id="rays"),
]
"""How far above the exact distance they may end on an affine model, of it."""


class Both(nn.Module):
    """Logits (0, w.x): the goal is reached where w.x has left the side of the label."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, rows: Tensor) -> Tensor:
        score = rows.flatten(1) @ self.weight
        return torch.stack((torch.zeros_like(score), score), 1)


def run(spec: AttackSpec, model: nn.Module, asked: Problem) -> Outcome:
    return catalogue.run(spec, float(asked.ball.eps[0]), target(model), asked)


def walked(asked: Problem, model: nn.Module, queries: int = 1000) -> Trail:
    """The trail of rows that may ask so often, by the judge."""
    return Trail(Spy(target(model), "decision"), asked, queries)


@pytest.mark.parametrize(("spec", "norm", "slack"), CLOSE)
@pytest.mark.parametrize("bounds", [None, (-4.0, 4.0)], ids=["free", "boxed"])
def test_they_come_down_to_the_exact_distance_of_a_plane(spec: AttackSpec, norm: str, slack: float, bounds: tuple[float, float]) -> None:
    case = affine(16)
    asked = problem(case.x, case.labels, norm, INF, bounds, stop=False)
    outcome = run(spec, case.model, asked)
    distance = asked.ball.distance(outcome.x)
    excess = distance / case.distance[norm] - 1
    assert outcome.success.all()
    assert excess.min() > -1e-6
    assert excess.max() < slack
    assert torch.allclose(outcome.score.double(), -distance, rtol=1e-5)


def test_more_queries_never_end_further_away() -> None:
    case = affine(16)
    for spec in (HopSkipJump(queries=200, probes=20), Boundary(queries=200), RayS(queries=50)):
        norm = spec.norms[-1]
        asked = problem(case.x, case.labels, norm, INF, stop=False)
        more = spec.model_copy(update={"queries": 3 * spec.queries})
        short, long = (asked.ball.distance(run(each, case.model, asked).x) for each in (spec, more))
        assert (long <= short * (1 + 1e-3)).all()
        assert long.mean() < short.mean() * 0.95


@pytest.mark.parametrize(("spec", "norm", "slack"), CLOSE)
def test_a_verdict_needs_fewer_queries_than_a_distance_and_says_the_same(spec: AttackSpec, norm: str, slack: float) -> None:
    case = affine(16)
    eps = float(case.distance[norm].median())
    verdict = run(spec, case.model, problem(case.x, case.labels, norm, eps))
    course = run(spec, case.model, problem(case.x, case.labels, norm, INF, stop=False))
    assert not verdict.success[case.distance[norm] > eps].any()
    assert verdict.success[case.distance[norm] * (1 + slack) < eps].all()
    assert (verdict.queries <= spec.queries).all()
    assert verdict.queries[verdict.success].sum() < course.queries[verdict.success].sum() / 2
    assert torch.equal(verdict.x[~verdict.success], case.x[~verdict.success])


def test_inside_a_small_eps_they_still_walk_in_all_the_bounds_allow() -> None:
    """The box of a small linf ball holds no start; the walk comes from outside."""
    case = affine(16)
    eps = case.distance["linf"] * 1.2
    for spec in (HopSkipJump(queries=1500, probes=20), RayS(queries=300)):
        outcome = run(spec, case.model, problem(case.x, case.labels, "linf", eps, (-4.0, 4.0)))
        assert outcome.success.all()


def test_the_nearest_point_is_remembered_and_every_question_counted() -> None:
    x = torch.zeros(2, 3)
    asked = problem(x, torch.zeros(2, dtype=torch.int64), "l2", 1.0, stop=False)
    trail, rows = walked(asked, Both(torch.tensor([1.0, 0.0, 0.0])), 5), torch.tensor([0, 1])
    assert trail.ask(rows, torch.tensor([[3.0, 0, 0], [-1.0, 0, 0]])).tolist() == [True, False]
    assert trail.ask(rows[:1], torch.tensor([[0.5, 0, 0]])).tolist() == [True]
    assert trail.ask(rows[:1], torch.tensor([[2.0, 0, 0]])).tolist() == [True]
    assert trail.probe(torch.tensor([0, 0, 1]), torch.ones(3, 3)).all()
    assert trail.x.tolist() == [[0.5, 0, 0], [0, 0, 0]]
    assert trail.distance.tolist() == [0.5, INF]
    assert trail.left.tolist() == [0, 3]
    assert trail.walking().tolist() == []
    ended = trail.outcome()
    assert ended.success.tolist() == [True, False]
    assert ended.queries.tolist() == [5, 2]


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_way_to_the_boundary_is_halved_to_the_precision_asked_for(norm: str) -> None:
    case = affine(16)
    asked = problem(case.x, case.labels, norm, INF, stop=False)
    weight = case.model.weight[1].detach()
    slope = torch.where(case.labels == 1, -1.0, 1.0)[:, None] * weight
    far = case.x + 50 * (slope.sign() if norm == "linf" else slope / weight.norm())
    trail = walked(asked, case.model)
    ended = approach(trail, torch.arange(16), far, 1e-3)
    excess = asked.ball.distance(ended) / case.distance[norm] - 1
    assert excess.min() > -1e-6
    assert excess.max() < 1.1e-3
    assert (1000 - trail.left).max() <= 25


def test_a_start_is_found_where_all_noise_looks_alike() -> None:
    class Smooth(nn.Module):
        """Class 1 where neighbours are alike on average and the picture is not dark."""

        def forward(self, rows: Tensor) -> Tensor:
            rough = rows.diff(dim=3).abs().mean((1, 2, 3))
            return torch.stack((rough, 0.15 - rough + (rows.mean((1, 2, 3)) - 0.3).clamp(max=0)), 1)

    x = torch.zeros(12, 1, 8, 8)
    asked = problem(x, torch.zeros(12, dtype=torch.int64), "l2", INF, (0.0, 1.0), stop=False)
    trail = walked(asked, Smooth())
    begin(trail, 8)
    assert trail.found.all()


def test_the_nearer_of_two_starts_is_taken_and_another_row_of_the_data_comes_first() -> None:
    case = affine(16)
    other = case.x[(case.labels[:, None] != case.labels[None]).long().argmax(1)]
    asked = problem(case.x, case.labels, "l2", INF, stop=False)._replace(other=other)
    ends = [asked.ball.distance(begin(walked(asked, case.model), count)) for count in (1, 2, 20)]
    assert (asked.ball.distance(other) * 1.001 > ends[0]).all()
    assert (ends[1] <= ends[0]).all()
    assert (ends[2] < ends[0] * 0.9).any()
    first = walked(asked, case.model, 1)
    begin(first, 1)
    assert torch.allclose(first.x, other, atol=1e-6)


def test_where_there_is_no_start_the_row_stands_and_its_questions_are_told() -> None:
    x = pictures(6)
    asked = problem(x, torch.zeros(6, dtype=torch.int64), "l2", INF, (0.0, 1.0), stop=False)
    for spec in (HopSkipJump(), Boundary(), HopSkipJump(queries=40)):
        outcome = run(spec, nn.Sequential(nn.Flatten(), Both(torch.zeros(64))), asked)
        assert not outcome.success.any()
        assert torch.equal(outcome.x, x)
        assert outcome.queries.tolist() == [35 if spec.queries == 40 else 100] * 6


def test_probes_find_the_boundary_s_normal() -> None:
    torch.manual_seed(0)
    weight = torch.randn(40)
    model, x = Both(weight), torch.randn(8, 40) * 3
    labels = target(model).labels(x)
    trail = walked(problem(x, labels, "l2", INF, stop=False), model, 5000)
    rows = torch.arange(8)
    here = approach(trail, rows, begin(trail, 1), 1e-5)
    slope = torch.where(labels == 1, -1.0, 1.0)[:, None] * weight / weight.norm()

    def cosine(probes: int) -> Tensor:
        found = normal(trail, rows, here, probes, probes)
        return (found * slope).sum(1) / found.norm(dim=1)

    few, many = cosine(40), cosine(1000)
    assert (few > 0.4).all()
    assert (many > 0.95).all()


def test_where_all_probes_agree_their_mean_is_the_normal() -> None:
    x = torch.zeros(1, 3)
    asked = problem(x, torch.zeros(1, dtype=torch.int64), "l2", INF, stop=False)
    for side in (1.0, -1.0):
        trail = walked(asked, Both(torch.tensor([1.0, 0.0, 0.0])))
        here = torch.tensor([[5.0 * side, 0.0, 0.0]])  # so deep in one class that every probe is of that class
        found = normal(trail, torch.tensor([0]), here, 10, 1)
        other = normal(walked(asked, Both(torch.tensor([-1.0, 0.0, 0.0]))), torch.tensor([0]), here, 10, 1)
        assert found.abs().max() > 0
        assert torch.equal(found, -other)


def test_a_leap_shrinks_until_it_lands_beyond_the_boundary() -> None:
    x = torch.zeros(1, 2)
    asked = problem(x, torch.zeros(1, dtype=torch.int64), "l2", INF, stop=False)

    class Island(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            inside = (rows[:, 0] > 0.95) & (rows[:, 1].abs() < 0.3)
            return torch.stack((~inside, inside), 1).float()

    trail, here = walked(asked, Island()), torch.tensor([[1.0, 0.0]])
    moved = leap(trail, torch.tensor([0]), here, torch.tensor([[0.0, 1.0]]), 1)
    assert torch.allclose(moved, torch.tensor([[1.0, 0.25]]))
    assert int(trail.left) == 1000 - 3
    assert torch.equal(leap(walked(asked, Island(), 2), torch.tensor([0]), here, torch.tensor([[0.0, 1.0]]), 1), here)


def test_rays_find_the_radius_of_their_signs_to_the_precision_asked_for() -> None:
    """All weights are positive, so that the first ray or its opposite is the nearest one; no block is worth turning."""
    weight = torch.linspace(0.5, 2.0, 16)
    x = torch.randn(10, 16, generator=torch.Generator().manual_seed(0))
    model = Both(weight)
    labels = target(model).labels(x)
    exact = (x @ weight).abs().double() / weight.sum()
    for precision in (0.1, 1e-2, 1e-4):
        asked = problem(x, labels, "linf", INF, stop=False)
        outcome = run(RayS(queries=500, precision=precision), model, asked)
        excess = asked.ball.distance(outcome.x) / exact - 1
        assert excess.min() > -1e-6
        assert excess.max() < precision * 1.01
        assert excess.max() > precision / 100


def test_rays_turn_every_sign_that_is_wrong_and_stop_when_none_is() -> None:
    case = affine(16)
    asked = problem(case.x, case.labels, "linf", INF, stop=False)
    outcome = run(RayS(queries=5000), case.model, asked)
    slope = torch.where(case.labels == 1, -1.0, 1.0)[:, None] * case.model.weight[1].detach()
    turned = (outcome.x - case.x).sign()
    heavy = case.model.weight[1].detach().abs() > 0.02
    assert torch.equal(turned[:, heavy], slope.sign()[:, heavy])
    assert outcome.queries.max() < 400, "a round of all blocks in vain is the end"


def test_the_judge_has_the_last_word_on_what_the_quicker_copy_decides() -> None:
    """It draws the boundary a little further out; points there take the place of those it refuses."""
    case = affine(16)
    further = nn.Linear(12, 2, bias=False)
    with torch.no_grad():
        further.weight.copy_(case.model.weight)

    class Doubtful(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            score = further(rows)[:, 1]
            clean = case.x[torch.cdist(rows, case.x).argmin(1)]
            side = torch.where(further(clean)[:, 1] > 0, 1.0, -1.0)
            return torch.stack((torch.zeros_like(score), score + side * 0.003), 1)

    bare = case.distance["l2"] > 0.3 * case.distance["l2"].median()
    for spec, norm in ((HopSkipJump(queries=800, probes=20), "l2"), (Boundary(queries=800), "l2"), (RayS(queries=300), "linf")):
        watched = target(case.model)
        watched.judge = Doubtful()
        outcome = catalogue.run(spec, INF, watched, problem(case.x, case.labels, norm, INF, stop=False))
        assert outcome.success[bare].all()
        assert torch.equal(watched.labels(outcome.x) != case.labels, outcome.success)
        eps = case.distance[norm] * 1.3
        verdict = catalogue.run(spec, INF, watched, problem(case.x, case.labels, norm, eps))
        assert verdict.success[bare].float().mean() > 0.9
        assert torch.equal(watched.labels(verdict.x) != case.labels, verdict.success)


def test_questions_go_to_the_copy_where_there_is_one_and_to_the_judge_where_not() -> None:
    model, x = cnn(), pictures(8)
    labels = target(model).labels(x)
    asked = problem(x, labels, "l2", INF, (0.0, 1.0), stop=False)
    for judge_alone in (False, True):
        watched = target(model)
        if judge_alone:
            watched.search = watched.judge
        seen: list[int] = []
        watched.judge.register_forward_hook(lambda module, given, out, seen=seen: seen.append(1))
        outcome = catalogue.run(HopSkipJump(queries=60, probes=10), INF, watched, asked)
        assert outcome.success.any()
        assert (len(seen) > 20) == judge_alone
        assert Decisions(watched).quick() is None or not judge_alone
