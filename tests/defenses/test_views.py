"""One set of weights in several views."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from defenses.cases import batch, convolutional, normed, same, tensors
from torch import Tensor, nn
from torch.autograd.graph import Node
from workers.orders import export

from sparring.contract.specs import ModelSpec
from sparring.defenses.perturb import pgd, slope
from sparring.defenses.views import Views
from sparring.workers.models import load_model

functional = nn.functional


def test_only_live_changes_the_running_statistics() -> None:
    model, x = normed(), batch().x
    views, before = Views(model), tensors(model)
    views.quiet(x), views.masked(x), views.still(x)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    views.live(x)
    assert not torch.equal(model[1].running_mean, before["1.running_mean"])


def test_quiet_and_masked_use_the_batch_and_still_the_running_statistics() -> None:
    model, x = normed(), batch().x
    views = Views(model)
    views.reseed(1)
    live, quiet, masked, still = (view(x).detach() for view in (views.live, views.quiet, views.masked, views.still))
    assert torch.equal(live, quiet)
    assert torch.equal(live, masked)
    assert torch.equal(still, model.eval()(x).detach())
    assert not torch.equal(still, live)


def test_all_views_follow_the_weights() -> None:
    model, x = normed(), batch().x
    views = Views(model)
    before = [view(x).detach() for view in (views.live, views.quiet, views.masked, views.still)]
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)
    after = [view(x).detach() for view in (views.live, views.quiet, views.masked, views.still)]
    assert not any(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert torch.equal(after[0], after[1])


def test_slopes_reach_the_weights_where_they_shall_and_nowhere_else() -> None:
    model, x = normed(), batch().x.requires_grad_()
    views = Views(model)
    for view in (views.masked, views.still):
        torch.autograd.backward(view(x).sum())
        assert all(weight.grad is None for weight in model.parameters())
    for view in (views.live, views.quiet):
        torch.autograd.backward(view(x).sum())
        assert all(weight.grad is not None for weight in model.parameters())
        model.zero_grad()
    assert x.grad is not None


def behind(out: Tensor) -> set[Node]:
    """Every step on the way from the weights and the rows."""
    found: set[Node] = set()
    waiting = [out.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [before for before, _ in node.next_functions]
    return found


def quick_slopes(out: Tensor) -> bool:
    """Whether a slope from here on comes by a convolution of few channels the quicker way."""
    return any("_ConvolutionBackward" in str(node) for node in behind(out))


def test_slopes_are_taken_the_quicker_way_where_weights_do_not_learn() -> None:
    views, x = Views(normed()), batch().x.requires_grad_()
    assert [quick_slopes(view(x)) for view in (views.live, views.quiet, views.masked, views.still, views.folded())] == [
        False,
        False,
        True,
        True,
        True,
    ]


def pooled() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.3)),
        *(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6, 10)),
    )


def poolings_of_relus(out: Tensor) -> int:
    pools = [node for node in behind(out) if "Pool" in node.name()]
    return sum(before is not None and before.name().startswith("Relu") for node in pools for before, _ in node.next_functions)


@pytest.mark.parametrize("view", ["live", "quiet", "masked", "still"])
def test_relus_wait_for_pooling_and_no_bit_changes(view: str) -> None:
    model, plain, x = pooled(), pooled(), batch().x
    views, logits = Views(model), plain.train(view != "still")
    views.reseed(3)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    for _ in range(2):
        torch.manual_seed(3)
        expected, found = logits(theirs), getattr(views, view)(ours)
        assert torch.equal(found, expected)
    assert (poolings_of_relus(expected), poolings_of_relus(found)) == (2, 0)
    torch.autograd.backward(expected.square().sum())
    torch.autograd.backward(found.square().sum())
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)  # slopes of few channels are taken another way where weights do not learn
    if view in ("live", "quiet"):
        assert torch.equal(ours.grad, theirs.grad)
        assert all(torch.equal(one.grad, two.grad) for one, two in zip(model.parameters(), plain.parameters(), strict=True))  # type: ignore[arg-type]
    if view == "live":
        assert same(model, plain)


class Wrapped(nn.Module):
    """What a trace would lose of it: a plain tensor, a part that must not learn, a mean that is kept, and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.back, self.head, self.shift = pooled()[:-1], nn.Linear(6, 10), torch.tensor([0.1])
        self.register_buffer("mean", torch.zeros(()))
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.mean().detach()
        self.seen.append(len(x))
        with torch.no_grad():
            x = self.back(x - self.shift)
        logits: Tensor = self.head(x)
        return logits


def test_a_model_of_which_a_trace_would_lose_something_is_trained_itself() -> None:
    model, plain, x = Wrapped(), Wrapped(), batch().x
    views = Views(model)
    views.reseed(3)
    torch.manual_seed(3)
    expected, logits = plain(x), views.live(x)
    assert torch.equal(logits, expected)
    assert torch.equal(logits, views.quiet(x))
    assert torch.equal(logits, views.masked(x))
    torch.autograd.backward(logits.sum())
    assert all(weight.grad is None for weight in model.back.parameters())
    assert model.head.weight.grad is not None
    assert (same(model, plain), model.seen) == (True, plain.seen)


def test_an_uploaded_graph_is_trained_as_the_model_it_was_made_of(tmp_path: Path) -> None:
    model, x = pooled(), batch().x
    graph = load_model(export(model, tmp_path / "m.pt2"), "pt2", ModelSpec()).module
    views, plain = Views(graph), pooled()
    views.reseed(3)
    torch.manual_seed(3)
    expected, found = plain.train()(x), views.live(x)
    torch.autograd.backward(found.square().sum())
    torch.autograd.backward(expected.square().sum())
    assert (poolings_of_relus(expected), poolings_of_relus(found)) == (2, 0)
    assert torch.allclose(found, expected, atol=1e-6)
    kept, known = graph.state_dict(), plain.state_dict()
    assert all(torch.allclose(kept[name], known[name], atol=1e-6) for name in known if known[name].is_floating_point())
    assert all(one.grad is not None for one in graph.parameters())


def test_the_slope_is_that_of_cross_entropy_and_of_the_divergence() -> None:
    views, given = Views(convolutional()), batch()
    x = given.x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(functional.cross_entropy(views.model(x), given.y, reduction="sum"), x)
    assert torch.allclose(slope(views.still, given.y, given.x), expected, atol=1e-6)
    clean = views.model(given.x.flip(0)).softmax(1).detach()
    (expected,) = torch.autograd.grad(functional.kl_div(views.model(x).log_softmax(1), clean, reduction="sum"), x)
    assert torch.allclose(slope(views.still, clean, given.x), expected, atol=1e-6)


def test_the_folded_copy_finds_nearly_what_the_model_itself_does() -> None:
    model, given = normed(), batch()
    for _ in range(20):
        model(given.x)
    views = Views(model)
    exact, folded = (pgd("l2", 0.5, 0.2, 4, folded=each)(views, given) for each in (False, True))
    assert not torch.equal(exact, folded)
    assert torch.allclose(exact, folded, atol=1e-4)


@pytest.mark.parametrize("make", [convolutional, normed])
def test_the_folded_copy_follows_the_weights(make: Callable[[], nn.Module]) -> None:
    model, given = make(), batch()
    views = Views(model)
    for _ in range(2):
        model.train()(given.x)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
            found = views.folded()(given.x)
            assert torch.allclose(found, copy.deepcopy(model).eval()(given.x), atol=1e-4)


def test_a_view_with_statistics_of_its_own_begins_every_update_with_the_models() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)
            self.register_buffer("passes", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.passes += 1
            return self.linear(x) + self.passes

    model, x = Counting(), torch.zeros(1, 3)
    views = Views(model)
    views.live(x)
    assert float(model.passes) == 1
    told = [views.live(x), views.quiet(x), views.quiet(x)]
    views.reseed(2)
    told.append(views.quiet(x))
    assert [float((each - told[0])[0, 0].detach()) for each in told] == [0, 1, 2, 1]
