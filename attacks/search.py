"""The search copy: what gradients are taken on. It may be prepared for speed; the judge never is.

Parameters are frozen, batch normalisation is folded into the convolution before it, a ReLU waits for the max pooling after it,
pictures run in channels-last memory, and slopes of convolutions of few channels are taken the quicker way. What cannot be traced is used
as it is.
"""

import copy
import operator
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from sparring.attacks.convolutions import quick_slopes
from sparring.attacks.rewrites import Folded, bare, fold, fold_modules, in_any_memory, pool_first


class Quicker(NamedTuple):
    """What was made of a model so that its slopes take less time."""

    module: nn.Module
    done: tuple[str, ...]
    """What was done, in words."""
    folded: tuple[Folded, ...]
    """What must be renewed when the model's weights change; all else shares the memory of the model's."""


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
    search, said, _ = quicker(frozen)
    done = ["parameters frozen", *said]
    pictures = [one for one in (*search.parameters(), *search.buffers()) if one.dim() == 4]
    if pictures:
        for one in pictures:
            one.data = one.data.to(memory_format=torch.channels_last)
        done.append("channels last")
    return search, tuple(done)


def quicker(model: nn.Module) -> Quicker:
    """What is made of a model whose parameters are frozen; the model is not to be used any more."""
    folded: list[Folded] = []
    said: list[str] = []

    def rewrite(graph: fx.GraphModule) -> bool:
        folded.extend((*fold(graph), *fold_modules(graph)))
        done = {"batch norm folded": folded, "max pooling before ReLU": pool_first(graph)}
        said.extend(words for words, count in done.items() if count)
        return in_any_memory(graph) > 0 or bool(said)

    made = _prepared(model, rewrite)
    search = model if made is None else made
    if quick_slopes(search):
        said.append("quicker slopes of few channels")
    return Quicker(search, tuple(said), tuple(folded))


def pooled(model: nn.Module) -> nn.Module | None:
    """What is made of a traceable model, in the mode that it is in, where a ReLU can wait for max pooling: the same, bit for bit; or None.

    The model is not to be used any more. What is made of it shares its memory.
    """
    if not traceable(model):
        return None
    return _prepared(model, pool_first)


def traceable(model: nn.Module) -> bool:
    """Whether a trace holds all that a pass does: all parts are graphs, layers of torch's own, or say `traceable` of their class.

    What others do beside calls of tensors, such as passing without a gradient or counting, a trace would lose.
    """
    return all(
        isinstance(part, fx.GraphModule)
        or (bare(part) and (type(part).__module__.startswith("torch.nn.modules.") or getattr(type(part), "traceable", False)))
        for part in model.modules()
    )


def _prepared(model: nn.Module, rewrite: Callable[[fx.GraphModule], object]) -> nn.Module | None:
    """The model, or else the one module that it holds, as a graph in which `rewrite` found something to do; None where there is none."""
    if (traced := _traced(model)) is not None:
        return traced if rewrite(traced) else None
    inner = list(model.named_children())
    if len(inner) == 1 and (traced := _traced(inner[0][1])) is not None and rewrite(traced):
        setattr(model, inner[0][0], traced)
        return model
    return None


def _traced(module: nn.Module) -> fx.GraphModule | None:
    """The module as a graph; None where it has no form of one, would lose what it draws, keeps or does in hooks, or is but a layer."""
    if isinstance(module, fx.GraphModule):
        return module
    if not bare(module) or not any(True for _ in module.children()):
        return None
    drawn, back = (torch.get_rng_state(), random.getstate()), _memory(module)
    try:
        graph = fx.GraphModule(module, _Tracer().trace(module))
    except Exception:  # tracing runs the model's own code, which may raise anything; then it is left as it is
        graph = None
    same = random.getstate() == drawn[1] and torch.equal(torch.get_rng_state(), drawn[0])
    return None if back() or not same else graph  # what was drawn or left for the next pass would be the same in every pass


class _Proxy(fx.Proxy):
    """A value of a trace, which notes that it is overwritten: fx takes `h += x` for `h = h + x`, though others may hold h."""


def _overwriting(operate: Callable[[Any, Any], Any]) -> Callable[[fx.Proxy, Any], fx.Proxy]:
    return lambda own, other: own.tracer.create_proxy("call_function", operate, (own, other), {})


for _name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor"):
    setattr(_Proxy, f"__{_name}__", _overwriting(getattr(operator, _name)))


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


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
