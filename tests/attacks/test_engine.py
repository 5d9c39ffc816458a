"""The loop itself: what it remembers, when it stops, and that the last move is scored."""

import pytest
import torch
from attacks.cases import affine, cnn, pictures, problem, target
from torch import Tensor, nn

from sparring.attacks import catalogue
from sparring.attacks.engine import climb
from sparring.attacks.losses import LOSSES, ce, dlr, margin
from sparring.attacks.parts import anywhere, ascend, backprop, centre
from sparring.attacks.problem import Goal
from sparring.contract.attacks import FGSM, PGD


def test_the_last_move_is_scored() -> None:
    case = affine()
    eps = float(case.distance["linf"].max()) * 1.001
    outcome = catalogue.run(PGD(steps=1, alpha=eps, start="clean"), eps, target(case.model), problem(case.x, case.labels, "linf", eps))
    assert outcome.success.all()


def test_fgsm_is_the_closed_form() -> None:
    case = affine()
    outcome = catalogue.run(FGSM(), 0.25, target(case.model), problem(case.x, case.labels, "linf", 0.25, stop=False))
    sign = torch.where(case.labels == 1, -1.0, 1.0)[:, None] * case.model.weight[1].sign()
    assert torch.allclose(outcome.x, case.x + 0.25 * sign, atol=1e-6)


class Basins(nn.Module):
    """One input, a slope that leads to the left everywhere but right of 0.5: only a start over there finds the way."""

    def forward(self, x: Tensor) -> Tensor:
        right = torch.relu(x - 0.5) * 4 - 0.5
        left = -torch.relu(0.5 - x).clamp(max=0.5) * 0.1 - 0.1
        score = torch.where(x > 0.5, right, left - (0.5 - x).clamp(min=0) * -0.2)
        return torch.cat((torch.zeros_like(score), score), 1)


def test_restarts_find_what_one_start_misses_and_undo_nothing() -> None:
    x = torch.full((64, 1), 0.2)
    asked = problem(x, torch.zeros(64, dtype=torch.int64), "linf", 0.6, (0.0, 1.0))
    counts = []
    for runs in (1, 2, 4, 8):
        spec = PGD(steps=5, alpha=0.05, restarts=runs, start="clean")
        counts.append(int(catalogue.run(spec, 0.6, target(Basins()), asked).success.sum()))
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] == 64 or counts[-1] > counts[1] > 0


def test_export_keeps_the_success_with_the_largest_margin() -> None:
    model, x = cnn(), pictures()
    labels = target(model).labels(x)
    verdict = problem(x, labels, "linf", 0.3, (0.0, 1.0))
    quick = catalogue.run(PGD(steps=20), 0.3, target(model), verdict)
    full = catalogue.run(PGD(steps=20), 0.3, target(model), verdict._replace(stop=False))
    assert torch.equal(quick.success, full.success)
    goal = Goal(labels)
    won = full.success
    assert (goal.margin(target(model).logits(full.x))[won] >= goal.margin(target(model).logits(quick.x))[won]).all()
    assert (full.queries[won] > quick.queries[won]).any()


def test_a_refused_row_goes_on_being_attacked() -> None:
    """The judge's boundary lies further out than the search copy's; the row must be carried over both."""
    judge, search = nn.Linear(1, 2), nn.Linear(1, 2)
    with torch.no_grad():
        for model, bias in ((judge, -0.8), (search, -0.2)):
            model.weight.copy_(torch.tensor([[0.0], [1.0]]))
            model.bias.copy_(torch.tensor([0.0, bias]))
    watched = target(judge)
    watched.search = search.requires_grad_(False)
    x = torch.zeros(40, 1)
    asked = problem(x, torch.zeros(40, dtype=torch.int64), "linf", 1.0)
    outcome = climb(backprop(ce), ascend(0.1), 10, centre)(watched, asked)
    assert outcome.success.all()
    assert (outcome.x > 0.8).all()
    short = climb(backprop(ce), ascend(0.1), 6, centre)(watched, asked)
    assert not short.success.any()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses_do_not_feel_a_shift_of_all_logits(loss) -> None:
    logits = torch.randn(30, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    goal = Goal(torch.arange(30) % 6, reference=logits.flip(0))
    assert torch.allclose(loss(logits, goal), loss(logits - 50, goal))


def test_margin_masks_the_label_when_all_logits_are_negative() -> None:
    assert Goal(torch.tensor([0])).margin(torch.tensor([[-50.0, -60.0, -70.0]])).item() == -10


def test_a_tie_is_no_success() -> None:
    assert not Goal(torch.tensor([1])).reached(torch.tensor([[2.0, 2.0]])).any()


def test_dlr_is_free_of_scale_and_defined_for_few_classes() -> None:
    goal = Goal(torch.tensor([0, 1, 2, 0]))
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(dlr(logits * 1000, goal), dlr(logits, goal), rtol=1e-4)
    assert torch.equal(dlr(logits[:, :2], Goal(torch.tensor([0, 1, 0, 1]))), margin(logits[:, :2], Goal(torch.tensor([0, 1, 0, 1]))))


def test_cross_entropy_orders_points_and_points_where_cross_entropy_does() -> None:
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    goal = Goal(torch.arange(20) % 5)
    exact = nn.functional.cross_entropy(logits, goal.labels, reduction="none")
    assert torch.allclose(nn.functional.softplus(ce(logits, goal)), exact)
    (ours,) = torch.autograd.grad(ce(logits, goal).sum(), logits, retain_graph=True)
    (theirs,) = torch.autograd.grad(exact.sum(), logits)
    assert torch.allclose(nn.functional.normalize(ours), nn.functional.normalize(theirs))


def test_large_logits_hide_nothing() -> None:
    """Where cross-entropy's own gradient is exactly zero, ours still leads out."""
    model, x = cnn(), pictures()

    class Loud(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            return model.eval()(rows) * 1e5

    labels = target(model).labels(x)
    loud = Loud().eval()
    rows = x.clone().requires_grad_()
    (plain,) = torch.autograd.grad(nn.functional.cross_entropy(loud(rows), labels, reduction="sum"), rows)
    asked = problem(x, labels, "linf", 0.2, (0.0, 1.0))
    quiet = catalogue.run(PGD(steps=20), 0.2, target(model), asked).success
    assert (plain.flatten(1).abs().amax(1) == 0).float().mean() > 0.5
    assert (catalogue.run(PGD(steps=20), 0.2, target(loud), asked).success == quiet).float().mean() > 0.9


def test_random_starts_differ_between_restarts_and_attacks() -> None:
    asked = problem(pictures(40), torch.zeros(40, dtype=torch.int64), "linf", 0.1, (0.0, 1.0))
    starts = [anywhere(asked), anywhere(asked.fork(1)), anywhere(asked.fork(2))]
    assert not torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[1], starts[2])


def test_tries_end_with_the_first_success_and_charge_no_more_than_they_took() -> None:
    """Tries of a row share the tile and may run ahead; what they cost beyond the one that succeeded is not the row's."""
    x = torch.full((40, 1), 0.2)
    asked = problem(x, torch.zeros(40, dtype=torch.int64), "linf", 0.6, (0.0, 1.0))
    whole = climb(backprop(ce), ascend(0.05), 5, anywhere, tries=6)(target(Basins(), 64), asked)
    assert whole.success.any()
    for row in range(40):
        alone = climb(backprop(ce), ascend(0.05), 5, anywhere, tries=6)(target(Basins(), 64), asked.select(torch.tensor([row])))
        assert torch.equal(alone.x[0], whole.x[row])
        assert alone.queries[0] == whole.queries[row]
    first = climb(backprop(ce), ascend(0.05), 5, anywhere)(target(Basins(), 64), asked)
    assert (whole.queries[first.success] <= 7).all()
    assert (whole.queries[~whole.success] == 36).all()
