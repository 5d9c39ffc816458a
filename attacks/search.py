"""The search copy: what gradients are taken on. It may be prepared for speed; the judge never is.

Parameters are frozen, batch normalisation is folded into the convolution before it, a ReLU waits for the max pooling after it,
pictures run in channels-last memory, and slopes of convolutions of few channels are taken tap by tap. What cannot be traced is used
as it is.
"""

import copy
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import is_parametrized

from sparring.attacks.convolutions import each, held, quick_slopes

FOLDED = "batch norm folded"
_CONVOLUTIONS = (torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default, torch.ops.aten.conv3d.default)
_RELUS = frozenset({nn.ReLU, functional.relu, torch.relu, "relu", torch.ops.aten.relu.default})
_POOLS = frozenset(
    {
        *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
        *(functional.max_pool1d, functional.max_pool2d, functional.max_pool3d),
        *(torch.ops.aten.max_pool1d.default, torch.ops.aten.max_pool2d.default, torch.ops.aten.max_pool3d.default),
    }
)


class Halved(nn.Module):
    """A search copy that computes in bfloat16 where that is safe for slopes; it answers in float32."""

    def __init__(self, search: nn.Module) -> None:
        """Share the parameters of `search`."""
        super().__init__()
        self.search = search

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) float32."""
        with torch.autocast(x.device.type, torch.bfloat16):
            logits: Tensor = self.search(x)
        return logits.float()


def search_copy(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """A frozen copy of `model` (in evaluation mode) to search on, and what was done to it, in words."""
    frozen = copy.deepcopy(model).eval()
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    search, said = quicker(frozen)
    done = ["parameters frozen", *said]
    if any(parameter.dim() == 4 for parameter in search.parameters()):
        search.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave this form out
        done.append("channels last")
    return search, tuple(done)


def quicker(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """A model whose parameters are frozen, or what is made of it, with quicker slopes; and what was done, in words.

    The model is not to be used any more. What is made of it shares its memory, but for batch norms that were folded.
    """
    search, said = _prepared(model, _rewritten)
    return search, (*said, *(("quicker slopes of few channels",) if quick_slopes(search) else ()))


def pooled(model: nn.Module) -> nn.Module | None:
    """What is made of a traceable model, in the mode that it is in, where a ReLU can wait for max pooling: the same, bit for bit; or None.

    The model is not to be used any more. What is made of it shares its memory.
    """
    if not traceable(model):
        return None
    made, said = _prepared(model, _waiting)
    return made if said else None


def traceable(model: nn.Module) -> bool:
    """Whether a trace holds all that a pass does: all parts are graphs, layers of torch's own, or say `traceable` of their class.

    What others do beside calls of tensors, such as passing without a gradient or counting, a trace would lose.
    """
    return all(
        isinstance(part, fx.GraphModule)
        or (_bare(part) and (type(part).__module__.startswith("torch.nn.modules.") or getattr(type(part), "traceable", False)))
        for part in model.modules()
    )


def _prepared(model: nn.Module, rewrite: Callable[[fx.GraphModule], tuple[str, ...]]) -> tuple[nn.Module, tuple[str, ...]]:
    """The model, or else the one module that it holds, rewritten where it can be traced; and what was done, in words."""
    if (traced := _traced(model)) is not None:
        return (traced, said) if (said := rewrite(traced)) else (model, ())
    inner = list(model.named_children())
    if len(inner) == 1 and (traced := _traced(inner[0][1])) is not None and (said := rewrite(traced)):
        setattr(model, inner[0][0], traced)
        return model, said
    return model, ()


def _rewritten(graph: fx.GraphModule) -> tuple[str, ...]:
    """Do to a graph what can be done; and say it."""
    folded = fold(graph) + fold_modules(graph)
    return (*((FOLDED,) if folded else ()), *_waiting(graph))


def _waiting(graph: fx.GraphModule) -> tuple[str, ...]:
    return ("max pooling before ReLU",) if pool_first(graph) else ()


def _traced(module: nn.Module) -> fx.GraphModule | None:
    """The module as a graph; None where it has no form of one, would lose what it draws, keeps or does in hooks, or is but a layer."""
    if isinstance(module, fx.GraphModule):
        return module
    if not _bare(module) or not any(True for _ in module.children()):
        return None
    drawn, back = (torch.get_rng_state(), random.getstate()), _memory(module)
    try:
        graph = fx.symbolic_trace(module)
    except Exception:  # tracing runs the model's own code, which may raise anything; then it is left as it is
        graph = None
    same = random.getstate() == drawn[1] and torch.equal(torch.get_rng_state(), drawn[0])
    return None if back() or not same else graph  # what was drawn or left for the next pass would be the same in every pass


def _memory(module: nn.Module) -> Callable[[], bool]:
    """Note what its parts keep from pass to pass. Who calls what is returned puts it back, and learns whether anything had changed."""
    kept = [one for part in module.modules() for one in (vars(part), *vars(part).values()) if isinstance(one, (dict, list, set))]
    noted = [(one, copy.copy(one)) for one in kept]
    values = [(buffer, buffer.clone()) for buffer in module.buffers()]

    def back() -> bool:
        changed = [(one, was) for one, was in noted if not _identical(one, was)]
        for one, was in changed:
            one.clear()
            one.extend(was) if isinstance(one, list) else one.update(was)
        other = [(buffer, was) for buffer, was in values if not torch.equal(buffer, was)]
        for buffer, value in other:
            buffer.data.copy_(value)
        return bool(changed or other)

    return back


def _identical(now: Any, before: Any) -> bool:
    if isinstance(now, dict):
        return now.keys() == before.keys() and all(now[name] is value for name, value in before.items())
    return len(now) == len(before) and all(one is other for one, other in zip(now, before, strict=True))


def _bare(module: nn.Module) -> bool:
    """Whether a pass is what the class says, and nothing before or after."""
    return not (module._forward_pre_hooks or module._forward_hooks or "forward" in vars(module))


def pool_first(graph: fx.GraphModule) -> int:
    """Let every ReLU wait for the max pooling that alone reads it; returns how many did.

    max(relu(u)) = relu(max(u)), values and slopes bit for bit, and fewer numbers are clipped.
    """
    layers, count = dict(graph.named_modules()), 0

    def does(node: fx.Node) -> object:
        if node.op != "call_module":
            return node.target
        layer = layers[str(node.target)]
        return type(layer) if _bare(layer) else None

    for pool in list(graph.graph.nodes):
        relu = pool.args[0] if pool.args else None
        if does(pool) not in _POOLS or not _usual(pool, layers) or not isinstance(relu, fx.Node) or does(relu) not in _RELUS:
            continue
        source = relu.args[0] if relu.args else None
        if not isinstance(source, fx.Node) or len(relu.users) > 1 or len(source.users) > 1:  # a ReLU may work in place
            continue
        # the source may be a view, and the ReLU change what it shows
        if _in_place(relu, layers) and source.op not in {"call_module", "placeholder"}:
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


def _in_place(relu: fx.Node, layers: dict[str, nn.Module]) -> bool:
    return bool(relu.kwargs.get("inplace") or len(relu.args) > 1 or getattr(layers.get(str(relu.target)), "inplace", False))


def _usual(pool: fx.Node, layers: dict[str, nn.Module]) -> bool:
    """It does not tell where its largest numbers were, and none of its windows can lie wholly in the padding, as dilated ones can."""
    layer = layers.get(str(pool.target))
    told: dict[str, Any] = dict(zip(("dilation", "ceil_mode", "return_indices"), pool.args[4:], strict=False)) | pool.kwargs
    dilation = told.get("dilation", getattr(layer, "dilation", 1))
    return set(each(dilation, 1)) == {1} and not told.get("return_indices", getattr(layer, "return_indices", False))


def fold_modules(graph: fx.GraphModule) -> int:
    """The same for a traced model that is made of torch's own layers; returns how many were folded."""
    layers = dict(graph.named_modules())
    calls = Counter(str(node.target) for node in graph.graph.nodes if node.op == "call_module")
    count = 0
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or not _constant(layers[node.target]):
            continue
        source = node.args[0]
        convolution = layers.get(str(source.target)) if source.op == "call_module" and len(source.users) == 1 else None
        if calls[str(source.target)] > 1:
            continue  # another place uses the same weights without this norm
        if not isinstance(convolution, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) or is_parametrized(convolution) or not _bare(convolution):
            continue  # its weights may be made anew in every pass
        graph.set_submodule(str(source.target), fuse_conv_bn_eval(convolution, layers[node.target]))
        node.replace_all_uses_with(source)
        graph.graph.erase_node(node)
        count += 1
    if count:
        graph.recompile()
    return count


def _constant(layer: nn.Module) -> bool:
    """Whether it is a batch norm that multiplies and adds the same numbers in every pass."""
    return isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None and not layer.training and _bare(layer)


def fold(graph: fx.GraphModule) -> int:
    """Fold each batch norm of an aten graph into the convolution that alone feeds it; returns how many.

    With scale s = weight / sqrt(variance + eps): W' = W s, b' = (b - mean) s + bias.
    """
    count = 0
    for node in list(graph.graph.nodes):
        if node.target is not torch.ops.aten.batch_norm.default or node.args[5]:
            continue
        source = node.args[0]
        if source.target not in _CONVOLUTIONS or len(source.users) > 1:
            continue
        weight, bias = (held(graph, source.args[at] if len(source.args) > at else None) for at in (1, 2))
        gain, shift, mean, variance = (held(graph, argument) for argument in node.args[1:5])
        if weight is None or mean is None or variance is None:
            continue
        scale = (variance + node.args[7]).rsqrt() * (1 if gain is None else gain)
        folded = weight * scale.reshape(-1, *(1,) * (weight.dim() - 1))
        offset = ((0 if bias is None else bias) - mean) * scale + (0 if shift is None else shift)
        with graph.graph.inserting_before(source):
            parts = [_hold(graph, f"folded_{count}_{kind}", value) for kind, value in (("weight", folded), ("bias", offset))]
        source.args = (source.args[0], *parts, *source.args[3:])
        node.replace_all_uses_with(source)
        graph.graph.erase_node(node)
        count += 1
    if count:
        graph.recompile()
    return count


def _hold(graph: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    graph.register_parameter(name, nn.Parameter(value, requires_grad=False))
    return graph.graph.get_attr(name)
