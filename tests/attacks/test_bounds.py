"""Sound bounds: exact where that is known, never broken by an attack, and honest about what they do not cover."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from attacks.cases import affine, problem, target
from torch import Tensor, fx, nn

from sparring.attacks import catalogue
from sparring.attacks.bounds import Bounded
from sparring.attacks.norms import NORMS, Ball, ball
from sparring.attacks.operators import Unbounded
from sparring.contract.attacks import APGD, PGD


def around(norm: str, x: Tensor, eps: float, bounds=None) -> Ball:
    return ball(norm, x, torch.full((len(x),), eps, dtype=torch.float64), bounds)


def others(labels: Tensor, classes: int) -> Tensor:
    return torch.ones(len(labels), classes, dtype=torch.bool).scatter(1, labels[:, None], False)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("width", [0, 2048])
def test_an_affine_model_is_bounded_exactly(norm, width):
    case = affine()
    dual = NORMS[norm].dual(case.model.weight.detach().diff(dim=0).double())
    expected = (case.distance[norm] - 0.1) * dual  # the score less eps times the dual norm of the weights
    found = Bounded(case.model, case.x).margins(around(norm, case.x, 0.1), case.labels, others(case.labels, 2), width)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_an_affine_model_is_proved_up_to_its_distance_and_no_farther(norm):
    case = affine()
    bounded, judged = Bounded(case.model, case.x), case.model(case.x).detach()
    for factor, expected in ((0.999, True), (1.001, False)):
        near = ball(norm, case.x, case.distance[norm] * factor, None)
        assert bool((bounded.robust(near, case.labels, others(case.labels, 2), judged) == expected).all())


def xor() -> nn.Module:
    """Scores (0, |a - b| - .5), as relu(a - b) + relu(b - a) - .5."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        model[2].weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        model[2].bias.copy_(torch.tensor([0.0, -0.5]))
    return model


def test_lines_around_the_exclusive_or_are_those_found_by_hand():
    """Around (0, 0), both hidden values lie in [-2e, 2e]; the line above each is h / 2 + e, so that |a - b| <= 2e, which is reached.

    Around (1, 0), with 2e < 1, both hidden values are settled and the bound is exact: |a - b| >= 1 - 2e.
    """
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    labels, eps = torch.tensor([0, 1]), 0.2
    found = Bounded(xor(), x).margins(around("linf", x, eps), labels, others(labels, 2))
    torch.testing.assert_close(found, torch.tensor([0.5 - 2 * eps, 0.5 - 2 * eps], dtype=torch.float64), rtol=0, atol=1e-6)
    one_sided = Bounded(xor(), x).margins(around("linf", torch.tensor([[0.1, 0.0]]), 0.2), labels[:1], others(labels[:1], 2))
    # hidden values in [-.3, .5] and [-.5, .3]: lines h * 5/8 + 3/16 and h * 3/8 + 3/16 cross the input as d / 4 + 3/8, at most .5
    torch.testing.assert_close(one_sided, torch.tensor([0.5 - 0.5 / 4 - 3 / 8], dtype=torch.float64), rtol=0, atol=1e-6)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two, self.norm = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm(self.two(torch.relu(self.one(x)))))


def dense(act: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 12), act(), nn.Linear(12, 12), nn.BatchNorm1d(12), act(), nn.Linear(12, 4))


KINDS: tuple[Callable[[], nn.Module], ...] = (
    lambda: dense(nn.ReLU),
    lambda: dense(nn.LeakyReLU),
    lambda: dense(nn.Sigmoid),
    lambda: dense(nn.Tanh),
    lambda: nn.Sequential(dense(nn.ELU), nn.Softmax(1)),
    lambda: dense(nn.Hardtanh),
    lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Flatten(), nn.Linear(36, 4)),
    lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), Residual(4), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 4)),
    lambda: nn.Sequential(Residual(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 4)),
    lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(2, 4, 3, 2, bias=False), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(12, 4)),
)


def network(seed: int) -> nn.Module:
    """A small network with weights, and statistics of its norms, drawn at random."""
    torch.manual_seed(seed)
    model = KINDS[seed % len(KINDS)]()
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(std=0.3)
            part.running_var.uniform_(0.5, 2)
            nn.init.normal_(part.weight)
    return model.eval()


@pytest.mark.parametrize("first", [0, 20, *(pytest.param(first, marks=pytest.mark.slow) for first in range(40, 200, 20))])
def test_no_attack_breaks_a_row_that_is_proved_and_no_point_leaves_the_bounds(first):
    """200 networks in all."""
    proofs = 0
    for seed in range(first, first + 20):
        model, norm = network(seed), ("linf", "l2", "l1", "l0")[(seed + seed // 10) % 4]
        x = torch.rand(6, 2, 4, 4, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            judged = model(x)
        labels, bounded, attacked = judged.argmax(1), Bounded(model, x), target(model)
        for eps in {"linf": (0.01, 0.05), "l2": (0.03, 0.2), "l1": (0.1, 0.5), "l0": (1.0, 2.0)}[norm]:
            task = problem(x, labels, norm, eps, (0.0, 1.0), seed=seed)
            proved = bounded.robust(task.ball, labels, others(labels, 4), judged)
            proofs += int(proved.sum())
            if norm != "l0":
                for spec in (PGD(steps=8, loss="margin"), APGD(steps=8)):
                    assert not bool((catalogue.run(spec, eps, attacked, task).success & proved).any()), (seed, eps)
            ends = bounded.logits(task.ball)
            for draw in range(8):
                key = task.fork(draw).key
                scores = inner(model)(task.ball.sample(key) if draw % 2 else task.ball.surface(key)).detach().double()
                assert bool(((scores >= ends.low - 1e-5) & (scores <= ends.high + 1e-5)).all()), (seed, eps)
                assert not bool((proved & (scores.argmax(1) != labels)).any())
    assert proofs > 20, "so few proofs test nothing"


def inner(model: nn.Module) -> nn.Module:
    """Without the softmax that ends it."""
    return model[0] if isinstance(model[-1], nn.Softmax) else model


@pytest.mark.parametrize("seed", range(10))
def test_a_larger_ball_is_never_proved_where_a_smaller_one_is_not(seed):
    model = network(seed)
    x = torch.rand(8, 2, 4, 4, generator=torch.Generator().manual_seed(seed))
    labels = inner(model)(x).argmax(1)
    margins = [Bounded(model, x).margins(around("linf", x, eps), labels, others(labels, 4)) for eps in (0.0, 0.01, 0.03, 0.1)]
    assert all(bool((larger <= smaller + 1e-9).all()) for smaller, larger in pairwise(margins))


def test_lines_prove_more_than_intervals():
    x = torch.rand(20, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = network(0)(x).argmax(1)
    loose, tight = (Bounded(network(0), x).margins(around("linf", x, 0.05), labels, others(labels, 4), width) for width in (0, 2048))
    assert bool((tight >= loose - 1e-9).all())
    assert float((tight - loose).mean()) > 1e-3


def test_only_the_rivals_asked_for_need_to_stay_behind():
    case = affine()
    nobody = torch.zeros(len(case.x), 2, dtype=torch.bool)
    assert bool(Bounded(case.model, case.x).robust(around("linf", case.x, 9.0), case.labels, nobody, case.model(case.x).detach()).all())


def test_a_judge_that_computes_something_else_leaves_nothing_proved():
    case = affine()
    judged = case.model(case.x).detach() + 100.0
    assert not bool(Bounded(case.model, case.x).robust(around("linf", case.x, 1e-6), case.labels, others(case.labels, 2), judged).any())


@pytest.mark.parametrize("missing", [float("nan"), float("inf")])
def test_nan_proves_nothing(missing):
    case = affine()
    with torch.no_grad():
        case.model.weight[1, 3] = missing
    judged = case.model(case.x).detach()
    assert not bool(Bounded(case.model, case.x).robust(around("linf", case.x, 1e-6), case.labels, others(case.labels, 2), judged).any())


def made(forward: Callable[[Tensor], Tensor]) -> nn.Module:
    class Made(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(x)

    return Made()


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda x: nn.functional.gelu(x), "gelu"),
        (lambda x: x * x, "mul"),
        (lambda x: 1 / x, "reciprocal"),
        (lambda x: x @ x.T, "rows apart"),
        (lambda x: x - x.mean(0), "mean"),
        (lambda x: x.softmax(0), "softmax"),
        (lambda x: x + torch.rand(4), "random"),
        (lambda x: x.detach() * 0 + x.sum().item(), "traced"),
        (lambda x: torch.ones(len(x), 4), "reach"),
        (lambda x: torch.add(x, x, alpha=-2), "add"),
        (lambda x: nn.functional.leaky_relu(x, -0.5), "leaky_relu"),
        (lambda x: x[:1].expand_as(x), "rows"),
        (lambda x: x.flip(0), "flip"),
    ],
)
def test_what_has_no_bound_is_told_with_its_reason(forward, reason):
    with pytest.raises(Unbounded, match=reason):
        Bounded(made(forward), torch.rand(5, 4))


def test_an_aten_graph_is_bounded_like_the_layers_it_came_from():
    x = torch.rand(5, 2, 4, 4)
    model = network(7)
    graph = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
    assert isinstance(graph, fx.GraphModule)
    labels = model(x).argmax(1)
    asked = around("l2", x, 0.1), labels, others(labels, 4)
    torch.testing.assert_close(Bounded(graph, x).margins(*asked), Bounded(model, x).margins(*asked))


def test_what_overwrites_is_bounded_like_what_does_not():
    def layers(inplace: bool) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(inplace), nn.Linear(8, 3))

    class Adding(nn.Module):
        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.body(x)
            scores += 0.5
            return scores.add_(scores)

    x, labels = torch.rand(5, 2, 6, 6), torch.zeros(5, dtype=torch.long)
    plain, writing = (
        Bounded(Adding(layers(inplace)).eval(), x).margins(around("linf", x, 0.01), labels, others(labels, 3), 2048)
        for inplace in (False, True)
    )
    assert torch.equal(plain, writing)


def test_the_model_is_left_as_it_was():
    model = network(7)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.rand(3, 2, 4, 4)
    Bounded(model, x).logits(around("linf", x, 0.1))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.grad is None for value in model.parameters())
