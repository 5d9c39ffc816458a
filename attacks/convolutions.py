"""Convolutions of few channels, such as those that a network begins with, whose slopes in their input the kernels of torch take slowly.

Tap by tap, the slope is a product of matrices, weights times the slope of the output, whose rows, one for each tap of the kernel, are
added where that tap looked: with four channels or fewer this is up to six times as fast on a CPU. By phases, where there is a stride,
places that lie as far beyond a multiple of it get what a convolution without stride makes of the slope of the output, and all such
phases are one convolution, whose results are put in their places: with sixteen channels or fewer, up to eight times as fast.
"""

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function_unary

_HELD = 1 << 24
"""Numbers of the product of weights and slopes that are held at a time."""
_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
ATEN = (torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default, torch.ops.aten.conv3d.default)
_CALLS = frozenset({*_CONVOLUTIONS.values(), *ATEN})
Sizes = int | Sequence[int]


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: Sizes = 0, dilation: Sizes = 1, groups: int = 1
) -> Tensor:
    """Rows (B, C, …) with weights (O, C, …) to (B, O, …): torch's convolution, whose slope in x is taken the quicker way where it can be.

    Where the weights learn, or the slope in x is not asked for, it is torch's own.
    """
    axes, learns = weight.dim() - 2, weight.requires_grad or (bias is not None and bias.requires_grad)
    suits = _suits(weight.shape[1:], stride, dilation, groups) and x.dim() == axes + 2
    if learns or not suits or x.device.type != "cpu" or not (x.requires_grad and torch.is_grad_enabled()):
        return _CONVOLUTIONS[axes](x, weight, bias, stride, padding, dilation, groups)
    if has_torch_function_unary(x):  # whoever watches the model sees one call
        return handle_torch_function(convolution, (x,), x, weight, bias, stride, padding, dilation, groups)
    return _Convolution.apply(x, weight, bias, per_axis(stride, axes), per_axis(padding, axes))  # type: ignore[no-any-return, no-untyped-call]


def _forward(self: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return convolution(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class Few1d(nn.Conv1d):
    """A layer that convolves few channels of series."""

    _conv_forward = _forward


class Few2d(nn.Conv2d):
    """A layer that convolves few channels of pictures."""

    _conv_forward = _forward


class Few3d(nn.Conv3d):
    """A layer that convolves few channels of volumes."""

    _conv_forward = _forward


_LAYERS: dict[type[nn.Module], type[nn.Module]] = {nn.Conv1d: Few1d, nn.Conv2d: Few2d, nn.Conv3d: Few3d}


def quick_slopes(model: nn.Module) -> int:
    """Let the convolutions of few channels in a model, whose weights do not learn, take slopes the quicker way; returns how many do."""
    found = [layer for layer in model.modules() if type(layer) in _LAYERS and _few(layer)]
    for layer in found:
        layer.__class__ = _LAYERS[type(layer)]
    count = len(found)
    for graph in [each for each in model.modules() if isinstance(each, fx.GraphModule)]:
        calls = [node for node in graph.graph.nodes if node.op == "call_function" and node.target in _CALLS and _calls_few(graph, node)]
        for node in calls:
            node.target = convolution
        if calls:
            graph.recompile()
        count += len(calls)
    return count


def _suits(kernel: Sequence[int], stride: Sizes, dilation: Sizes, groups: int) -> bool:
    """Few channels, by a kernel (C, …), all of them seen by every output, through taps that lie side by side."""
    return (kernel[0] <= 4 or _in_phases(kernel, per_axis(stride, len(kernel) - 1))) and groups == 1 and set(per_axis(dilation, 1)) == {1}


def _in_phases(kernel: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether phases are the quicker way for a kernel (C, …): enough of them for torch's kernels, and few zeros that fill them up."""
    (channels, *sizes), phases = kernel, prod(stride)
    filled = phases * prod(_taps(sizes, stride)) / prod(sizes)
    return phases > 1 and channels * phases >= 8 and channels * filled <= 16


def _taps(sizes: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Of each phase, along each axis of a kernel; where the stride does not divide it, the last one may be zero."""
    return [-(-size // step) for size, step in zip(sizes, stride, strict=True)]


def _few(layer: Any) -> bool:
    """The layer suits, pads with zeros, and by a number rather than a word, such as `same`."""
    suits = _suits(layer.weight.shape[1:], layer.stride, layer.dilation, layer.groups)
    return suits and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _calls_few(graph: fx.GraphModule, node: fx.Node) -> bool:
    """The same of a call, whose weights belong to the model."""
    weight = held(graph, node.args[1] if len(node.args) > 1 else None)
    told: dict[str, Any] = dict(zip(("stride", "padding", "dilation", "groups"), node.args[3:], strict=False)) | node.kwargs
    if weight is None or any(isinstance(each, (str, fx.Node)) for each in told.values()):
        return False
    return _suits(weight.shape[1:], *(told.get(name, 1) for name in ("stride", "dilation", "groups")))


def held(graph: fx.GraphModule, argument: object) -> Tensor | None:
    """The tensor that an argument of a call in a graph stands for, if the model holds it."""
    if not isinstance(argument, fx.Node) or argument.op != "get_attr":
        return None
    owner, _, name = str(argument.target).rpartition(".")
    value = getattr(graph.get_submodule(owner), name)
    return value.detach() if isinstance(value, Tensor) else None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.stride, ctx.padding, ctx.dtype = x.shape[2:], stride, padding, x.dtype
        return _CONVOLUTIONS[len(stride)](x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        (weight,), (slope,) = ctx.saved_tensors, slopes
        taken = _by_phases if _in_phases(weight.shape[1:], ctx.stride) else _by_taps
        with torch.autocast("cpu", enabled=False):  # whoever takes slopes inside of one means the pass, not the slopes
            whole = taken(ctx, weight.to(slope.dtype), slope)
        inner = tuple(slice(pad, pad + size) for size, pad in zip(ctx.size, ctx.padding, strict=True))
        return whole[:, :, *inner], None, None, None, None


def _by_taps(ctx: Any, weight: Tensor, slope: Tensor) -> Tensor:
    """In x (B, C, …) with its padding, from that in the output (B, O, …)."""
    row = weight[0].numel() * slope.shape[2:].numel()
    parts = [_of_taps(ctx, weight, part) for part in torch.split(slope, max(1, _HELD // row))]
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _of_taps(ctx: Any, weight: Tensor, slope: Tensor) -> Tensor:
    sizes, outputs, rows, cells = weight.shape[2:], len(weight), len(slope), slope.shape[2:]
    seen = slope.movedim(1, -1).reshape(-1, outputs)
    shares = (weight.movedim((0, 1), (-1, -2)).reshape(-1, outputs) @ seen.t()).view(*sizes, weight.shape[1], rows, *cells)
    around = (size + 2 * pad for size, pad in zip(ctx.size, ctx.padding, strict=True))
    whole = slope.new_zeros(weight.shape[1], rows, *around, dtype=ctx.dtype)  # added in the digits of x, where a slope has fewer
    for tap in product(*map(range, sizes)):
        looked = tuple(slice(at, at + step * (count - 1) + 1, step) for at, step, count in zip(tap, ctx.stride, cells, strict=True))
        whole[:, :, *looked] += shares[tap]
    return whole.transpose(0, 1)


def _by_phases(ctx: Any, weight: Tensor, slope: Tensor) -> Tensor:
    """In x (B, C, …) with its padding, from that in the output (B, O, …).

    What tap s t + q of the kernel adds at place s i + q comes from output i - t: for each phase q of the stride s a convolution
    with the taps t, the last first.
    """
    stride, (outputs, channels, *sizes), axes = ctx.stride, weight.shape, len(ctx.stride)
    taps = _taps(sizes, stride)
    more = [count * step - size for count, step, size in zip(taps, stride, sizes, strict=True)]
    parted = _filled(weight, more).view(outputs, channels, *(one for pair in zip(taps, stride, strict=True) for one in pair))
    at, phase = range(2, 2 + 2 * axes, 2), range(3, 3 + 2 * axes, 2)
    kernel = parted.flip(*at).permute(*phase, 1, 0, *at).reshape(-1, outputs, *taps)
    if axes == 2:
        kernel = kernel.contiguous(memory_format=torch.channels_last)
    made = _CONVOLUTIONS[axes](slope, kernel, None, 1, [count - 1 for count in taps]).movedim(1, -1)
    rows, *places, _ = made.shape
    order = (one for axis in range(1, axes + 1) for one in (axis, axes + axis))
    whole = made.view(rows, *places, *stride, channels).permute(0, *order, -1)
    whole = whole.reshape(rows, *(count * step for count, step in zip(places, stride, strict=True)), channels).movedim(-1, 1)
    beyond = [max(0, size + 2 * pad - had) for size, pad, had in zip(ctx.size, ctx.padding, whole.shape[2:], strict=True)]
    return _filled(whole, beyond).to(ctx.dtype)


def _filled(numbers: Tensor, more: Sequence[int]) -> Tensor:
    """With so many zeros more at the end of each axis of (…, …, sizes)."""
    return functional.pad(numbers, [one for count in reversed(more) for one in (0, count)]) if any(more) else numbers


def per_axis(sizes: Sizes, axes: int) -> tuple[int, ...]:
    """The size along each of so many axes, of which one may stand for all."""
    every = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    return every * axes if len(every) == 1 else every
