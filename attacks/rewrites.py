"""What is done to the graph of a search copy or of a view, so that passes take less time. Each tells what it did."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights
from torch.nn.utils.parametrize import is_parametrized

from sparring.attacks.convolutions import ATEN, held, per_axis

_RELUS = frozenset({nn.ReLU, functional.relu, torch.relu, "relu", torch.ops.aten.relu.default})
_POOLS = frozenset(
    {
        *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
        *(functional.max_pool1d, functional.max_pool2d, functional.max_pool3d),
        *(torch.ops.aten.max_pool1d.default, torch.ops.aten.max_pool2d.default, torch.ops.aten.max_pool3d.default),
    }
)
_FRESH = frozenset({nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d})
"""Layers that make memory of their own."""


class Folded(NamedTuple):
    """A convolution that a batch norm was folded into."""

    parts: tuple[nn.Parameter, ...]
    """Its weight and bias."""
    made: Callable[[], tuple[Tensor, Tensor]]
    """Both anew, from weights and statistics as they are."""

    def renew(self) -> None:
        """Take over what was learnt since."""
        with torch.no_grad():
            for own, value in zip(self.parts, self.made(), strict=True):
                own.copy_(value)


def bare(module: nn.Module) -> bool:
    """Whether a pass is what the class says, and nothing before or after."""
    return not (module._forward_pre_hooks or module._forward_hooks or "forward" in vars(module))


def pool_first(graph: fx.GraphModule) -> int:
    """Let every ReLU wait for the max pooling that alone reads it; returns how many did.

    max(relu(u)) = relu(max(u)), values and slopes bit for bit, and fewer numbers are clipped.
    """
    layers, count = dict(graph.named_modules()), 0
    for pool in list(graph.graph.nodes):
        relu = pool.args[0] if pool.args else None
        if _does(pool, layers) not in _POOLS or not _usual(pool, layers):
            continue
        if not isinstance(relu, fx.Node) or _does(relu, layers) not in _RELUS:
            continue
        source = relu.args[0] if relu.args else None
        if not isinstance(source, fx.Node) or len(relu.users) > 1 or len(source.users) > 1:  # a ReLU may work in place
            continue
        # the source may show another's memory, and the ReLU change that
        if _in_place(relu, layers) and source.op != "placeholder" and _does(source, layers) not in _FRESH:
            continue
        pool.replace_input_with(relu, source)
        with graph.graph.inserting_after(pool):
            later = graph.graph.node_copy(relu)
        pool.replace_all_uses_with(later)
        later.args = (pool, *relu.args[1:])
        graph.graph.erase_node(relu)
        count += 1
    if count:
        graph.recompile()
    return count


def in_any_memory(graph: fx.GraphModule) -> int:
    """Let what is seen in another shape lie in any order of memory, as that of channels last; returns how many do."""
    count = 0
    for node in graph.graph.nodes:
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
        elif node.op == "call_method" and node.target == "view" and not any(isinstance(one, torch.dtype) for one in node.args):
            node.target = "reshape"
        else:
            continue
        count += 1
    if count:
        graph.recompile()
    return count


def _does(node: fx.Node, layers: dict[str, nn.Module]) -> object:
    """What a node calls: a function, the name of a method, or the class of a layer that does no more than its class says."""
    if node.op != "call_module":
        return node.target
    layer = layers[str(node.target)]
    return type(layer) if bare(layer) else None


def _in_place(relu: fx.Node, layers: dict[str, nn.Module]) -> bool:
    return bool(relu.kwargs.get("inplace") or len(relu.args) > 1 or getattr(layers.get(str(relu.target)), "inplace", False))


def _usual(pool: fx.Node, layers: dict[str, nn.Module]) -> bool:
    """It does not tell where its largest numbers were, and none of its windows can lie wholly in the padding, as dilated ones can."""
    layer = layers.get(str(pool.target))
    told: dict[str, Any] = dict(zip(("dilation", "ceil_mode", "return_indices"), pool.args[4:], strict=False)) | pool.kwargs
    dilation = told.get("dilation", getattr(layer, "dilation", 1))
    return set(per_axis(dilation, 1)) == {1} and not told.get("return_indices", getattr(layer, "return_indices", False))


def fold_modules(graph: fx.GraphModule) -> list[Folded]:
    """Fold each batch norm of a traced model, made of torch's own layers, into the convolution that alone feeds it."""
    layers = dict(graph.named_modules())
    calls = Counter(str(node.target) for node in graph.graph.nodes if node.op == "call_module")
    reads = [str(node.target) for node in graph.graph.nodes if node.op == "get_attr"]
    done = []
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or not _constant(layers[node.target]) or not node.args:
            continue
        source = node.args[0]
        convolution = layers.get(str(source.target)) if source.op == "call_module" and len(source.users) == 1 else None
        if calls[str(source.target)] > 1 or any(str(source.target) == read.rpartition(".")[0] for read in reads):
            continue  # another place uses the same weights without this norm
        if not isinstance(convolution, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) or is_parametrized(convolution) or not bare(convolution):
            continue  # its weights may be made anew in every pass
        norm = layers[node.target]
        fused = fuse_conv_bn_eval(convolution, norm)
        told = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        done.append(Folded(tuple(fused.parameters()), partial(fuse_conv_bn_weights, convolution.weight, convolution.bias, *told)))
        graph.set_submodule(str(source.target), fused)
        node.replace_all_uses_with(source)
        graph.graph.erase_node(node)
    if done:
        graph.recompile()
    return done


def _constant(layer: nn.Module) -> bool:
    """Whether it is a batch norm that multiplies and adds the same numbers in every pass."""
    known = isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None
    return known and not layer.training and bare(layer) and not is_parametrized(layer)


def fold(graph: fx.GraphModule) -> list[Folded]:
    """The same for an aten graph.

    With scale s = weight / sqrt(variance + eps): W' = W s, b' = (b - mean) s + bias.
    """
    done: list[Folded] = []
    for node in list(graph.graph.nodes):
        if node.target is not torch.ops.aten.batch_norm.default or node.args[5]:
            continue
        source = node.args[0]
        if source.target not in ATEN or len(source.users) > 1:
            continue
        given = [*(source.args[at] if len(source.args) > at else None for at in (1, 2)), *node.args[1:5]]
        found = [held(graph, argument) for argument in given]
        if any(tensor is None and isinstance(one, fx.Node) for one, tensor in zip(given, found, strict=True)):
            continue  # made anew in every pass
        weight, bias, gain, shift, mean, variance = found
        if weight is None or mean is None or variance is None:
            continue
        made = partial(fuse_conv_bn_weights, weight, bias, mean, variance, node.args[7], gain, shift)
        with graph.graph.inserting_before(source):
            parts = [_hold(graph, f"folded_{len(done)}_{kind}", value) for kind, value in zip(("weight", "bias"), made(), strict=True)]
        done.append(Folded(tuple(graph.get_parameter(str(part.target)) for part in parts), made))
        source.args = (source.args[0], *parts, *source.args[3:])
        node.replace_all_uses_with(source)
        graph.graph.erase_node(node)
    if done:
        graph.recompile()
    return done


def _hold(graph: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    graph.register_parameter(name, nn.Parameter(value.detach(), requires_grad=False))
    return graph.graph.get_attr(name)
