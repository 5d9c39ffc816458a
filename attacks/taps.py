"""Convolutions of few channels, such as the first one that a network looks at a picture with.

The slope in their input is a product of matrices, weights times the slope of the output, whose rows, one for each tap of the kernel, are
added where that tap looked. The kernels of torch are made for many channels: with four or fewer this is up to six times as fast on a CPU.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function_unary

_FEW = 4
_HELD = 1 << 24
"""Numbers of the product that are held at a time."""
_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_CALLS = frozenset(
    {
        *(functional.conv1d, functional.conv2d, functional.conv3d),
        *(torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default, torch.ops.aten.conv3d.default),
    }
)
Sizes = int | Sequence[int]


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: Sizes = 0, dilation: Sizes = 1, groups: int = 1
) -> Tensor:
    """Rows (B, C, …) with weights (O, C, …) to (B, O, …): torch's convolution, whose slope in x is taken the quicker way where it can be.

    Where the weights learn, or the slope in x is not asked for, it is torch's own.
    """
    axes, learns = weight.dim() - 2, weight.requires_grad or (bias is not None and bias.requires_grad)
    suits = _suits(weight.shape[1], dilation, groups) and x.dim() == axes + 2
    if learns or not suits or x.device.type != "cpu" or not (x.requires_grad and torch.is_grad_enabled()):
        return _CONVOLUTIONS[axes](x, weight, bias, stride, padding, dilation, groups)
    if has_torch_function_unary(x):  # whoever watches the model sees one call
        return handle_torch_function(convolution, (x,), x, weight, bias, stride, padding, dilation, groups)
    return _Taps.apply(x, weight, bias, each(stride, axes), each(padding, axes))  # type: ignore[no-any-return, no-untyped-call]


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


def by_taps(model: nn.Module) -> int:
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


def _suits(channels: int, dilation: Sizes, groups: int) -> bool:
    """Few channels, all of them seen by every output, through taps that lie side by side."""
    return channels <= _FEW and groups == 1 and set(each(dilation, 1)) == {1}


def _few(layer: Any) -> bool:
    """The layer suits, pads with zeros, and by a number rather than a word, such as `same`."""
    return _suits(layer.in_channels, layer.dilation, layer.groups) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _calls_few(graph: fx.GraphModule, node: fx.Node) -> bool:
    """The same of a call, whose weights belong to the model."""
    weight = held(graph, node.args[1] if len(node.args) > 1 else None)
    rest: dict[str, Any] = dict(zip(("dilation", "groups"), node.args[5:], strict=False)) | node.kwargs
    worded = any(isinstance(each, str) for each in (*node.args, *node.kwargs.values()))
    return weight is not None and _suits(weight.shape[1], rest.get("dilation", 1), rest.get("groups", 1)) and not worded


def held(graph: fx.GraphModule, argument: object) -> Tensor | None:
    """The tensor that an argument of a call in a graph stands for, if the model holds it."""
    if not isinstance(argument, fx.Node) or argument.op != "get_attr":
        return None
    owner, _, name = str(argument.target).rpartition(".")
    value = getattr(graph.get_submodule(owner), name)
    return value.detach() if isinstance(value, Tensor) else None


class _Taps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.stride, ctx.padding, ctx.dtype = x.shape[2:], stride, padding, x.dtype
        return _CONVOLUTIONS[len(stride)](x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: FunctionCtx, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        (weight,), (slope,) = ctx.saved_tensors, slopes  # type: ignore[attr-defined]  # what forward left
        row = weight[0].numel() * slope.shape[2:].numel()
        parts = [_slope(ctx, weight.to(slope.dtype), part) for part in torch.split(slope, max(1, _HELD // row))]
        return torch.cat(parts) if len(parts) > 1 else parts[0], None, None, None, None


def _slope(ctx: Any, weight: Tensor, slope: Tensor) -> Tensor:
    """In x (B, C, …), from that in the output (B, O, …)."""
    sizes, outputs, rows, cells = weight.shape[2:], len(weight), len(slope), slope.shape[2:]
    seen = slope.movedim(1, -1).reshape(-1, outputs)
    shares = (weight.movedim((0, 1), (-1, -2)).reshape(-1, outputs) @ seen.t()).view(*sizes, weight.shape[1], rows, *cells)
    around = (size + 2 * pad for size, pad in zip(ctx.size, ctx.padding, strict=True))
    whole = slope.new_zeros(weight.shape[1], rows, *around, dtype=ctx.dtype)  # added in the digits of x, where a slope has fewer
    for tap in product(*map(range, sizes)):
        looked = tuple(slice(at, at + step * (count - 1) + 1, step) for at, step, count in zip(tap, ctx.stride, cells, strict=True))
        whole[:, :, *looked] += shares[tap]
    inner = tuple(slice(pad, pad + size) for size, pad in zip(ctx.size, ctx.padding, strict=True))
    return whole[:, :, *inner].transpose(0, 1)


def each(sizes: Sizes, axes: int) -> tuple[int, ...]:
    """The size along each of so many axes, of which one may stand for all."""
    every = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    return every * axes if len(every) == 1 else every
