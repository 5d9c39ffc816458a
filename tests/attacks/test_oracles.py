"""Problems whose answer is known on paper."""

import math

import pytest
import torch
from attacks.cases import affine, cnn, pictures, problem, target
from torch import Tensor, nn

from sparring.attacks import catalogue
from sparring.attacks.losses import kl
from sparring.attacks.problem import Goal
from sparring.contract.attacks import APGD, BIM, FAB, FGM, FGSM, MIFGSM, PGD, VAT, AttackSpec, DeepFool, GradientAscent, Square


def line(weight: list[float], bias: float) -> nn.Module:
    """Two classes, logits (0, w.x + b)."""
    model = nn.Linear(len(weight), 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0] * len(weight), weight]))
        model.bias.copy_(torch.tensor([0.0, bias]))
    return model


@pytest.mark.parametrize(("spec", "norm"), [(FGSM(), "linf"), (FGM(), "l2"), (FGM(), "l1")], ids=["fgsm", "fgm-l2", "fgm-l1"])
def test_one_step_lowers_the_score_by_eps_times_the_dual_norm(spec: AttackSpec, norm: str) -> None:
    case = affine()
    outcome = catalogue.run(spec, 0.25, target(case.model), problem(case.x, case.labels, norm, 0.25, stop=False))
    gap = lambda x: case.model(x)[:, 1].detach()  # noqa: E731  # a name for the score
    dual = gap(case.x).abs() / case.distance[norm]
    sign = torch.where(case.labels == 1, 1.0, -1.0)
    assert torch.allclose(gap(outcome.x), (gap(case.x) - sign * 0.25 * dual).float(), atol=1e-5)


def test_fgm_l1_spends_what_the_box_refuses_on_the_next_entry() -> None:
    """The largest slope sits at the edge of the box, the second has room for 0.2; the rest goes to the third."""
    model = line([3.0, 2.0, 1.0], 0.0)
    x = torch.tensor([[0.0, 0.2, 0.9]])
    outcome = catalogue.run(FGM(), 0.5, target(model), problem(x, torch.tensor([1]), "l1", 0.5, (0.0, 1.0), stop=False))
    assert torch.allclose(outcome.x, torch.tensor([[0.0, 0.0, 0.6]]), atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "norm"),
    [
        *((spec, "linf") for spec in (PGD(steps=20), BIM(steps=10), MIFGSM(steps=10), APGD(steps=20), GradientAscent(steps=60, rate=0.5))),
        *((spec, "l2") for spec in (PGD(steps=40, alpha=0.0625), MIFGSM(steps=10), APGD(steps=60), GradientAscent(steps=300, rate=0.5))),
    ],
)
def test_a_longer_course_ends_where_one_step_does_on_an_affine_model(spec: AttackSpec, norm: str) -> None:
    case = affine()
    asked = problem(case.x, case.labels, norm, 0.25, stop=False)
    once = catalogue.run(FGSM() if norm == "linf" else FGM(), 0.25, target(case.model), asked)
    many = catalogue.run(spec, 0.25, target(case.model), asked)
    assert torch.allclose(many.x, once.x, atol=1e-5 if norm == "linf" else 1e-3)
    assert torch.allclose(case.model(many.x), case.model(once.x), atol=1e-5)


def multiclass(classes: int = 6, size: int = 10, rows: int = 30) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """An affine model, rows, labels, and each row's exact distance min_i (z_y - z_i) / ||w_y - w_i||_1 in linf."""
    torch.manual_seed(5)
    model, x = nn.Linear(size, classes), torch.randn(rows, size)
    scores = model(x).detach().double()
    labels = scores.argmax(1)
    own = scores.gather(1, labels[:, None])
    weight = model.weight.detach().double()
    lengths = (weight[labels][:, None] - weight[None]).abs().sum(2)
    distance = torch.where(lengths > 0, (own - scores) / lengths.clamp(min=1e-12), math.inf)
    return model, x, labels, distance.amin(1)


def test_aimed_at_every_class_apgd_finds_the_nearest_boundary() -> None:
    """A single run may climb toward a class that is not the nearest; over all targets the distance is exact."""
    model, x, labels, distance = multiclass()
    spec = APGD(steps=40, loss="difference", targets=5)
    for row in range(0, len(x), 6):
        for factor, broken in ((1 - 1e-3, False), (1 + 1e-3, True)):
            eps = float(distance[row]) * factor
            outcome = catalogue.run(spec, eps, target(model), problem(x[row : row + 1], labels[row : row + 1], "linf", eps))
            assert bool(outcome.success) == broken


def test_the_vat_direction_is_the_weight_vector_and_its_divergence_the_exact_one() -> None:
    """F = p (1 - p) w w^T: one power iteration is exact for any start; LDS(+-) = KL(Bern(s) || Bern(s +- eps ||w||))."""
    model = line([0.3, -1.2, 0.5], 0.4)
    x = torch.zeros(40, 3)
    outcome = catalogue.run(VAT(), 0.5, target(model), problem(x, torch.ones(40, dtype=torch.int64), "l2", 0.5, stop=False))
    direction = torch.tensor([0.3, -1.2, 0.5]) / math.sqrt(1.78)
    assert torch.allclose((outcome.x @ direction).abs(), torch.full((40,), 0.5), atol=1e-3)
    found = kl(model(outcome.x).detach(), Goal(torch.ones(40, dtype=torch.int64), reference=model(x).detach()))
    up, down = found[outcome.x @ direction > 0], found[outcome.x @ direction < 0]
    assert len(up) > 5
    assert len(down) > 5
    assert torch.allclose(up, torch.tensor(0.0503515), atol=1e-5)
    assert torch.allclose(down, torch.tensor(0.0548551), atol=1e-5)


@pytest.mark.parametrize("spec", [FGSM(), PGD(steps=10), APGD(steps=20), APGD(steps=10, loss="dlr", targets=3)])
def test_what_the_predictions_say_is_what_counts(spec: AttackSpec) -> None:
    """Another name for each class, a constant on every logit: the same rows fall."""
    model, x = cnn(), pictures(60)
    labels = target(model).labels(x)
    order = torch.tensor([3, 0, 4, 1, 2])

    class Renamed(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            return model(rows)[:, order] - 50

    plain = catalogue.run(spec, 0.1, target(model), problem(x, labels, "linf", 0.1, (0.0, 1.0)))
    other = catalogue.run(spec, 0.1, target(Renamed()), problem(x, order.argsort()[labels], "linf", 0.1, (0.0, 1.0)))
    assert 0 < int(plain.success.sum()) < 60
    assert int((plain.success != other.success).sum()) <= 1


def test_without_labels_fgsm_is_fgsm_wherever_the_model_is_right() -> None:
    model, x = cnn(), pictures(60)
    labels = target(model).labels(x)
    asked = problem(x, labels, "linf", 0.1, (0.0, 1.0), stop=False)
    for known, blind in ((FGSM(), FGSM(labels="predicted")), (PGD(steps=5), PGD(steps=5, labels="predicted"))):
        assert torch.equal(catalogue.run(known, 0.1, target(model), asked).x, catalogue.run(blind, 0.1, target(model), asked).x)


def test_more_restarts_and_more_targets_never_break_fewer_rows() -> None:
    model, x = cnn(), pictures(64)
    labels = target(model).labels(x)
    asked = problem(x, labels, "linf", 0.06, (0.0, 1.0))
    for make in (
        lambda n: PGD(steps=5, restarts=n),
        lambda n: APGD(steps=10, restarts=n),
        lambda n: APGD(steps=10, loss="dlr", targets=n),
    ):
        broken = [catalogue.run(make(n), 0.06, target(model), asked).success for n in (1, 2, 4)]
        assert bool((broken[1] >= broken[0]).all())
        assert bool((broken[2] >= broken[1]).all())


def test_a_model_that_varies_is_climbed_by_its_mean_slope() -> None:
    """Each pass draws noise that drowns a single gradient's sign in most entries; the mean of many finds the way."""

    class Wavering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = line([1.0] * 8, 2.0)

        def forward(self, rows: Tensor) -> Tensor:
            shaken = self.plain.weight + 6 * torch.randn(self.plain.weight.shape)
            return torch.stack((torch.zeros(len(rows)), rows @ shaken[1] + 2.0), 1)

    x = torch.zeros(64, 8)
    judge = line([1.0] * 8, 2.0)

    def end(samples: int) -> float:
        torch.manual_seed(0)
        watched = target(judge)
        watched.search = Wavering()
        spec = PGD(steps=1, alpha=0.2, start="clean", samples=samples, loss="margin")
        outcome = catalogue.run(spec, 0.2, watched, problem(x, torch.ones(64, dtype=torch.int64), "linf", 0.2, stop=False))
        return float(judge(outcome.x)[:, 1].mean().detach())

    assert end(40) < end(1)


@pytest.mark.parametrize(
    "spec",
    [
        PGD(steps=10, loss="margin"),
        PGD(steps=10, loss="dlr"),
        APGD(steps=15, loss="dlr"),
        APGD(steps=10, loss="dlr", targets=2),
        APGD(steps=15, loss="margin"),
        Square(queries=30),
        DeepFool(steps=5),
        FAB(steps=5),
    ],
    ids=lambda spec: f"{spec.kind}-{getattr(spec, 'loss', '')}",
)
def test_logits_that_are_eight_times_as_large_change_no_bit(spec: AttackSpec) -> None:
    """A power of two scales every number of a pass exactly."""
    model, louder, x = cnn(), cnn(), pictures(24)
    with torch.no_grad():
        for parameter in louder[-1].parameters():
            parameter.mul_(8)
    asked = problem(x, target(model).labels(x), "linf", 0.08, (0.0, 1.0), stop=False)
    plain, other = (catalogue.run(spec, 0.08, target(each), asked) for each in (model, louder))
    assert torch.equal(plain.success, other.success)
    assert torch.equal(plain.x, other.x)
    assert plain.success.any()


def test_a_longer_search_for_the_smallest_change_ends_no_farther_away() -> None:
    model, x = cnn(), pictures(16)
    asked = problem(x, target(model).labels(x), "l2", math.inf, (0.0, 1.0), stop=False)
    ends = [asked.ball.distance(catalogue.run(FAB(steps=n), math.inf, target(model), asked).x) for n in (3, 8, 20)]
    assert (ends[1] <= ends[0] * (1 + 4e-4)).all()  # the bisection at the end is no finer
    assert (ends[2] <= ends[1] * (1 + 4e-4)).all()
    assert (ends[2] < ends[0] * (1 - 1e-3)).any()


def test_a_larger_ball_leaves_fewer_rows_standing() -> None:
    model, x = cnn(), pictures(40)
    labels = target(model).labels(x)
    for spec in (FGSM(), PGD(steps=10), APGD(steps=15)):
        left = [
            int((~catalogue.run(spec, eps, target(model), problem(x, labels, "linf", eps, (0.0, 1.0))).success).sum())
            for eps in (0.01, 0.05, 0.1, 1.0)
        ]
        assert left == sorted(left, reverse=True)
        assert left[-1] < left[0]
