"""Quicker slopes are those of torch's own convolution, on every geometry, and are taken only where weights do not learn."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from sparring.attacks.convolutions import Few2d, convolution, quick_slopes

PLAIN = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


def slopes(out: Tensor, x: Tensor) -> Tensor:
    (grad,) = torch.autograd.grad(out.square().sum(), x)
    return grad


@pytest.mark.parametrize(("channels", "stride", "padding"), list(product((1, 3), (1, 2, 3), (0, 1, 2))))
@pytest.mark.parametrize(
    ("shape", "kernel"), [((9,), (4,)), ((7, 10), (3, 4)), ((5, 6, 4), (2, 3, 1))], ids=["series", "picture", "volume"]
)
def test_slopes_tap_by_tap_are_those_of_torch(
    shape: tuple[int, ...], kernel: tuple[int, ...], channels: int, stride: int, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparring.attacks.convolutions._in_phases", lambda kernel, stride: False)
    x, weight = torch.randn(5, channels, *shape, dtype=torch.float64), torch.randn(6, channels, *kernel, dtype=torch.float64)
    same_slopes(x, weight, stride, padding)


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("channels", [1, 3, 16])
@pytest.mark.parametrize(
    ("shape", "kernel", "stride"),
    [
        *(((9,), (6,), 2), ((13,), (4,), 4)),
        *(((11, 9), (7, 5), (3, 2)), ((8, 11), (5, 7), 2), ((13,), (5,), 3)),
        *(((7, 10), (4, 2), 2), ((7, 10), (1, 3), 2), ((8, 9), (2, 2), 2), ((12, 13), (6, 3), (3, 1)), ((11, 10), (4, 6), (4, 3))),
        ((5, 6, 4), (2, 4, 1), (1, 2, 1)),
    ],
)
def test_slopes_by_phases_are_those_of_torch(
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: int | tuple[int, ...],
    channels: int,
    padding: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sparring.attacks.convolutions._in_phases", lambda kernel, stride: True)
    x, weight = torch.randn(5, channels, *shape, dtype=torch.float64), torch.randn(6, channels, *kernel, dtype=torch.float64)
    same_slopes(x, weight, stride, padding)
    if len(shape) == 2:
        same_slopes(x.to(memory_format=torch.channels_last), weight.to(memory_format=torch.channels_last), stride, padding)


def same_slopes(x: Tensor, weight: Tensor, stride: int | tuple[int, ...], padding: int) -> None:
    x, bias = x.requires_grad_(), torch.randn(len(weight), dtype=torch.float64)
    ours = convolution(x, weight, bias, stride, padding)
    theirs = PLAIN[x.dim() - 2](x, weight, bias, stride, padding)
    assert "_Convolution" in str(ours.grad_fn)
    assert torch.equal(ours, theirs)
    assert torch.allclose(slopes(ours, x), slopes(theirs, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (4, 2)])
def test_slopes_of_slopes_are_right(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 2, 5, 5, dtype=torch.float64, requires_grad=True), torch.randn(3, 2, kernel, kernel, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda x: convolution(x, weight, None, stride, 1).sin(), (x,))


def test_a_large_product_is_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(7, 1, 6, 6, requires_grad=True), torch.randn(4, 1, 3, 3)
    whole = slopes(convolution(x, weight), x)
    monkeypatch.setattr("sparring.attacks.convolutions._HELD", 2 * 9 * 16)
    assert torch.allclose(slopes(convolution(x, weight), x), whole, atol=1e-5)


@pytest.mark.parametrize("kernel", [3, 4])
def test_no_rows_have_no_slopes(kernel: int) -> None:
    x = torch.zeros(0, 3, 8, 8, requires_grad=True)
    assert slopes(convolution(x, torch.randn(4, 3, kernel, kernel), None, 2, 1), x).shape == x.shape


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(7, 1, 3), (4, 2, 1)])
def test_in_fewer_digits_slopes_are_as_near_as_those_of_torch(kernel: int, stride: int, padding: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.rand(4, 3, 32, 32, requires_grad=True), torch.randn(64, 3, kernel, kernel).bfloat16().float()
    up = torch.randn(4, 64, 32 // stride, 32 // stride).bfloat16()

    def slope(convolve: Callable[..., Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            out = convolve(x, weight, None, stride, padding)
        (grad,) = torch.autograd.grad(out, x, up)
        assert grad.dtype == x.dtype
        return grad

    (exact,) = torch.autograd.grad(functional.conv2d(x, weight, None, stride, padding), x, up.float())
    ours, theirs = ((slope(convolve) - exact).norm() for convolve in (convolution, functional.conv2d))
    assert ours < 1.5 * theirs


def test_slopes_taken_where_passes_have_fewer_digits_have_all_theirs() -> None:
    torch.manual_seed(0)
    x, weight = torch.rand(4, 3, 8, 8, requires_grad=True), torch.randn(8, 3, 4, 4)
    out = convolution(x, weight, None, 2, 1)
    (exact,) = torch.autograd.grad(out.square().sum(), x, retain_graph=True)
    loss = out.square().sum()
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = torch.autograd.grad(loss, x)
    assert torch.equal(found, exact)


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "groups", "dilation", "learns"),
    [
        *((5, 3, 1, 1, 1, False), (4, 3, 1, 2, 1, False), (3, 3, 1, 1, 2, False), (3, 3, 1, 1, 1, True)),
        *((16, 3, 2, 1, 1, False), (17, 4, 2, 1, 1, False), (16, 4, 2, 2, 1, False), (8, 4, 2, 1, 2, False), (8, 4, 2, 1, 1, True)),
    ],
)
def test_what_does_not_suit_is_left_to_torch(channels: int, kernel: int, stride: int, groups: int, dilation: int, learns: bool) -> None:
    x = torch.randn(2, channels, 8, 8, requires_grad=True)
    weight = torch.randn(4, channels // groups, kernel, kernel, requires_grad=learns)
    out = convolution(x, weight, None, stride, 1, dilation, groups)
    assert "_Convolution" not in str(out.grad_fn)
    assert torch.equal(out, functional.conv2d(x, weight, None, stride, 1, dilation, groups))


def test_without_slopes_it_is_one_convolution_to_whoever_watches() -> None:
    class Watch(TorchFunctionMode):
        def __torch_function__(self, call, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(call.__name__)
            return call(*args, **(kwargs or {}))

    x, weight = torch.randn(2, 1, 8, 8), torch.randn(4, 1, 3, 3)
    for slope, name in ((False, "conv2d"), (True, "convolution")):
        seen: list[str] = []
        with Watch():
            out = convolution(x.requires_grad_(slope), weight)
        assert [each for each in seen if "conv" in each] == [name]
        assert out.requires_grad == slope


class Mixed(nn.Module):
    """A layer of few channels, one of many, and calls without a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.few, self.many, self.same = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(3, 8, 3, padding="same")
        self.weight = nn.Parameter(torch.randn(8, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.many(self.few(x)) + functional.conv2d(functional.conv2d(x, self.weight), self.many.weight)
        return y.mean((2, 3)) + self.same(x).mean((2, 3))


class Divided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.spread = nn.Parameter(torch.randn(6, 1, 3, 3)), nn.Parameter(torch.randn(6, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.conv2d(x, self.spread, padding=2, dilation=2) + functional.conv2d(x, self.spread, None, 1, (2, 2), (2, 2))
        return functional.conv2d(x, self.weight, None, 1, 1, 1, 6) + functional.conv2d(x, self.weight, padding=1, groups=6)


def test_what_torch_would_take_all_the_same_is_not_counted() -> None:
    assert quick_slopes(nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2), nn.Conv2d(4, 4, 3, groups=2))) == 0
    assert quick_slopes(fx.symbolic_trace(Divided().requires_grad_(False))) == 0


def test_layers_and_calls_of_few_channels_are_found_and_others_left() -> None:
    torch.manual_seed(0)
    model = Mixed().requires_grad_(False)
    x = torch.randn(4, 3, 9, 9, requires_grad=True)
    before, slope = model(x), slopes(model(x), x)
    graph = fx.symbolic_trace(model)
    assert quick_slopes(graph) == 2
    assert [name for name, layer in graph.named_modules() if isinstance(layer, Few2d)] == ["few"]
    assert torch.equal(graph(x), before)
    assert torch.allclose(slopes(graph(x), x), slope, atol=1e-4)
    assert quick_slopes(graph) == 0
