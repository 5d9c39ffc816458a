"""The search copy answers as the model does, whatever was done to it, and the model is not touched."""

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from workers.orders import export

from sparring.attacks.rewrites import pool_first
from sparring.attacks.search import quicker, search_copy
from sparring.contract.specs import ModelSpec
from sparring.workers.models import load_model


class Residual(nn.Module):
    """Two branches over normalised convolutions, and a norm that no convolution feeds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.alone = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(3)
        self.norm1, self.norm2, self.head = nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.first(self.alone(x))))
        x = torch.relu(self.norm2(self.second(x)) + x)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Holder(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits


def lived(model: nn.Module) -> nn.Module:
    """With running statistics and scales that are not the initial ones."""
    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            if layer.affine:
                nn.init.normal_(layer.weight)
                nn.init.normal_(layer.bias)
    return model.eval()


@pytest.mark.parametrize("as_graph", [True, False], ids=["pt2", "module"])
def test_folded_and_equal(as_graph: bool, tmp_path: Path) -> None:
    model = lived(Residual())
    held = Holder(load_model(export(model, tmp_path / "m.pt2", (3, 8, 8)), "pt2", ModelSpec()).module if as_graph else model)
    before = copy.deepcopy(held.state_dict())
    search, done = search_copy(held)
    assert done == ("parameters frozen", "batch norm folded", "quicker slopes of few channels", "channels last")
    x = torch.randn(5, 3, 8, 8)
    assert torch.allclose(search(x), model(x), atol=1e-5)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    (one,), (other,) = torch.autograd.grad(search(ours).square().sum(), ours), torch.autograd.grad(model(theirs).square().sum(), theirs)
    assert torch.allclose(one, other, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in held.state_dict().items())
    assert not any(parameter.requires_grad for parameter in search.parameters())
    assert sum(parameter.numel() for parameter in search.parameters()) > 0


def test_layers_that_the_model_itself_calls_are_folded() -> None:
    model = lived(Residual())
    search, _ = search_copy(model)
    assert isinstance(search, fx.GraphModule)
    assert {node.target for node in search.graph.nodes} & {"alone", "norm1", "norm2"} == {"alone"}
    x = torch.randn(5, 3, 8, 8)
    assert torch.allclose(search(x), model(x), atol=1e-5)


def test_a_convolution_used_twice_is_not_folded() -> None:
    class Shared(Residual):
        def forward(self, x: Tensor) -> Tensor:
            once = self.norm1(self.first(x))
            return self.head((once + self.first(x)).mean((2, 3)))

    model = lived(Shared())
    x = torch.randn(4, 3, 8, 8)
    assert torch.allclose(search_copy(Holder(model))[0](x), model(x), atol=1e-5)


def test_what_cannot_be_traced_is_used_as_it_is() -> None:
    class Branching(Residual):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.sum() > 0 else -x)

    model = lived(Branching())
    search, done = search_copy(Holder(model))
    assert "batch norm folded" not in done
    x = torch.rand(3, 3, 8, 8)
    assert torch.allclose(search(x), model(x), atol=1e-6)


def small(convolution: nn.Module, norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(convolution, norm, nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4))


def turned(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda layer, asked, answer: -answer)
    return layer


def replaced(layer: nn.Module) -> nn.Module:
    whole = layer.forward
    layer.forward = lambda x: -whole(x)  # type: ignore[method-assign]  # as patches of single objects do
    return layer


class Picky(Holder):
    """Looks at its input first, which cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.dim() == 4 else x[None])


HUNG = {
    "weights made anew": lambda: small(parametrizations.weight_norm(nn.Conv2d(3, 6, 3)), nn.BatchNorm2d(6)),
    "spectral norm": lambda: small(parametrizations.spectral_norm(nn.Conv2d(3, 6, 3)), nn.BatchNorm2d(6)),
    "norm of the batch": lambda: small(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, track_running_stats=False)),
    "hook on a convolution": lambda: small(turned(nn.Conv2d(3, 6, 3)), nn.BatchNorm2d(6)),
    "hook on a norm": lambda: small(nn.Conv2d(3, 6, 3), turned(nn.BatchNorm2d(6))),
    "another forward of a convolution": lambda: small(replaced(nn.Conv2d(3, 6, 3)), nn.BatchNorm2d(6)),
    "hook on the model": lambda: turned(small(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6))),
    "in one module that can be traced": lambda: Picky(small(parametrizations.weight_norm(nn.Conv2d(3, 6, 3)), nn.BatchNorm2d(6))),
    "hook on the one module it holds": lambda: Picky(turned(small(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)))),
    "hook on a ReLU": lambda: nn.Sequential(turned(nn.ReLU()), nn.MaxPool2d(2), nn.Flatten()),
}


@pytest.mark.parametrize("made", HUNG.values(), ids=HUNG)
def test_what_a_layer_does_besides_its_class_is_kept(made: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = made().requires_grad_(False)
    x = torch.rand(4, 3, 8, 8) - 0.5
    model(x)
    assert torch.allclose(search_copy(model.eval())[0](x), model(x), atol=1e-5)


@pytest.mark.parametrize("draw", [lambda: torch.randn(1, 3, 8, 8), random.random], ids=["torch", "python"])
def test_what_a_model_draws_is_drawn_in_every_pass(draw: Callable[[], Tensor | float]) -> None:
    class Noisy(Residual):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + draw())

    search, _ = search_copy(lived(Noisy()).requires_grad_(False))
    x = torch.rand(3, 3, 8, 8)
    assert not torch.equal(search(x), search(x))


def counts(model: "Remembering") -> None:
    model.passes = model.passes + 1


def adds_in_place(model: "Remembering") -> None:
    model.passes += 1


def appends(model: "Remembering") -> None:
    model.seen.append(1)
    model.passes = model.passes * 0 + len(model.seen)


def behind_autograd(model: "Remembering") -> None:
    if isinstance(model.passes, Tensor):
        model.passes.data.add_(1)
    else:
        counts(model)


class Remembering(Residual):
    """Multiplies by how many passes it has made."""

    passes: Any

    def __init__(self, passes: int | Tensor, note: Callable[["Remembering"], None]) -> None:
        super().__init__()
        if isinstance(passes, Tensor):
            self.register_buffer("passes", passes)
        else:
            self.passes = passes
        self.note, self.seen = note, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.note(self)
        return super().forward(x) * self.passes


@pytest.mark.parametrize("note", [counts, adds_in_place, behind_autograd, appends])
@pytest.mark.parametrize("passes", [0, torch.zeros(())], ids=["attribute", "buffer"])
def test_what_a_pass_leaves_for_the_next_is_left_by_every_pass(passes: int | Tensor, note: Callable[[Remembering], None]) -> None:
    model = lived(Remembering(copy.deepcopy(passes), note)).requires_grad_(False)
    search, _ = search_copy(model)
    assert model.passes == 0
    assert model.seen == []
    x = torch.rand(3, 3, 8, 8)
    first, second = search(x), search(x)
    assert torch.equal(second, 2 * first)


class Pooled(nn.Module):
    """A ReLU read by the pooling alone, one that is read twice, and one whose source is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(channels, 6, 3, padding=1) for channels in (5, 6, 6))
        self.pool, self.head = nn.MaxPool2d(2), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(torch.relu(self.first(x)), 3, 2, 1)
        y = torch.relu(self.second(x))
        x = self.pool(y) + functional.avg_pool2d(y, 2)
        z = self.third(x)
        x = self.pool(torch.relu(z)) - functional.avg_pool2d(z, 2)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


@pytest.mark.parametrize("as_graph", [True, False], ids=["pt2", "module"])
def test_a_relu_waits_for_the_pooling_that_alone_reads_it(as_graph: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Pooled().eval()
    held = Holder(load_model(export(model, tmp_path / "m.pt2", (5, 16, 16)), "pt2", ModelSpec()).module if as_graph else model)
    search, done = search_copy(held)
    assert "max pooling before ReLU" in done
    assert isinstance(search, fx.GraphModule)
    assert pool_first(search) == 0
    plain = copy.deepcopy(held).to(memory_format=torch.channels_last)
    x = torch.randn(5, 5, 16, 16)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    assert torch.equal(search(ours), plain(theirs))
    (one,), (other,) = torch.autograd.grad(search(ours).square().sum(), ours), torch.autograd.grad(plain(theirs).square().sum(), theirs)
    assert torch.equal(one, other)


class Viewing(nn.Module):
    """Clips a view in place, and reads what it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = functional.max_pool2d(functional.relu(y.view(-1, 4, 6, 6), inplace=True), 2)
        logits: Tensor = self.last(z.flatten(1)) + y.mean()
        return logits


@pytest.mark.parametrize(
    "make",
    [
        Viewing,
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2, stride=1, padding=1, dilation=5), nn.Flatten()),
    ],
    ids=["in place on a view", "windows wholly in the padding"],
)
def test_a_relu_that_cannot_wait_does_not(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = make().eval().requires_grad_(False), torch.randn(4, 3, 8, 8)
    search, done = search_copy(model)
    assert "max pooling before ReLU" not in done
    assert torch.allclose(search(x), model(x), atol=1e-5)


def test_a_pooling_that_tells_its_indices_is_left_as_it_is() -> None:
    class Telling(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            values, at = functional.max_pool2d(torch.relu(x), 2, return_indices=True)
            return (values + at).flatten(1)

    assert pool_first(fx.symbolic_trace(Telling())) == 0
    assert pool_first(fx.symbolic_trace(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2, return_indices=True)))) == 0
    assert pool_first(fx.symbolic_trace(nn.Sequential(nn.ReLU(inplace=True), nn.MaxPool2d(2)))) == 1


class Overwriting(Residual):
    """Adds to what goes by two names."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.alone(x))
        skip = x
        x += 0.7
        logits: Tensor = self.head(torch.relu(self.norm2(self.second(x)) + skip).mean((2, 3)))
        return logits


class Peeking(Residual):
    """Uses the weights of a layer beside the layer."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(
            (self.norm2(self.second(self.first(x))) + functional.conv2d(self.first(x), self.second.weight, padding=1)).mean((2, 3))
        )
        return logits


class Named(Residual):
    """Gives a norm its rows by name."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm1(input=self.first(x)).mean((2, 3)))
        return logits


class Passing(nn.Module):
    """Clips in place what a layer only passed on, and reads it again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.passed, self.last = nn.Conv2d(3, 4, 3), nn.Identity(), nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = functional.max_pool2d(functional.relu(self.passed(y), inplace=True), 2)
        logits: Tensor = self.last(z.flatten(1)) + y.mean()
        return logits


class Volumes(nn.Module):
    """Convolves a volume, then pictures, and shows them in another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv3d(1, 4, 3), nn.Conv2d(4, 6, 3), nn.Linear(96, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.second(self.first(x[:, None]).squeeze(2)))
        logits: Tensor = self.last(y.view(y.size(0), -1))
        return logits


@pytest.mark.parametrize("make", [Overwriting, Peeking, Named, Passing, Volumes])
@pytest.mark.parametrize("as_graph", [True, False], ids=["pt2", "module"])
def test_what_a_trace_could_mistake_is_the_same(make: Callable[[], nn.Module], as_graph: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = lived(make()), torch.randn(4, 3, 8, 8)
    held = load_model(export(model, tmp_path / "m.pt2", (3, 8, 8)), "pt2", ModelSpec()).module if as_graph else model
    search, _ = search_copy(held)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    assert torch.allclose(search(ours), model(theirs), atol=1e-5)
    (one,), (other,) = torch.autograd.grad(search(ours).square().sum(), ours), torch.autograd.grad(model(theirs).square().sum(), theirs)
    assert torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("part", ["gain", "bias"])
def test_a_norm_whose_numbers_are_made_anew_in_a_graph_is_not_folded(part: str, tmp_path: Path) -> None:
    class Computed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)

        def forward(self, x: Tensor) -> Tensor:
            bias = self.convolution.bias * (2 if part == "bias" else 1)
            gain = self.norm.weight.abs() if part == "gain" else self.norm.weight
            x = functional.conv2d(x, self.convolution.weight, bias)
            return functional.batch_norm(x, self.norm.running_mean, self.norm.running_var, gain, self.norm.bias).mean((2, 3))

    torch.manual_seed(0)
    model, x = lived(Computed()), torch.randn(4, 3, 8, 8)
    search, done = search_copy(load_model(export(model, tmp_path / "m.pt2", (3, 8, 8)), "pt2", ModelSpec()).module)
    assert "batch norm folded" not in done
    assert torch.allclose(search(x), model(x), atol=1e-5)


@pytest.mark.parametrize("as_graph", [True, False], ids=["pt2", "module"])
def test_what_was_folded_follows_weights_and_statistics_when_it_is_renewed(as_graph: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = lived(Residual()).requires_grad_(False), torch.randn(4, 3, 8, 8)
    plain = load_model(export(model, tmp_path / "m.pt2", (3, 8, 8)), "pt2", ModelSpec()).module if as_graph else model
    shared: dict[int, object] = {id(one): one for one in (*plain.parameters(), *plain.buffers())}
    made = quicker(copy.deepcopy(plain, shared))
    assert "batch norm folded" in made.done
    for one in (*plain.parameters(), *plain.buffers()):
        if one.is_floating_point():
            one.data.mul_(1.5)
    assert not torch.allclose(made.module(x), plain(x), atol=0.1)
    for each in made.folded:
        each.renew()
    assert torch.allclose(made.module(x), plain(x), atol=1e-4)
