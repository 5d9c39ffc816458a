"""Training and evaluation mode of a graph: the flags that torch.export baked into its operators, switched in place."""

from collections.abc import Callable
from typing import Any

import torch
from torch.fx.node import map_aggregate

from sparring.workers.errors import Refused

MODES = "modes"
"""Key in a node's meta: `(argument, in training, in evaluation)`; node.meta survives copies of the graph."""

_FLAGS = {
    torch.ops.aten.batch_norm.default: 5,
    torch.ops.aten.instance_norm.default: 5,
    torch.ops.aten.dropout.default: 2,
    torch.ops.aten.dropout_.default: 2,
    torch.ops.aten.feature_dropout.default: 2,
    torch.ops.aten.feature_dropout_.default: 2,
    torch.ops.aten.alpha_dropout.default: 2,
    torch.ops.aten.alpha_dropout_.default: 2,
    torch.ops.aten.feature_alpha_dropout.default: 2,
    torch.ops.aten.rrelu.default: 3,
    torch.ops.aten.rrelu_.default: 3,
}
"""Operators that behave differently in training, and which argument says so."""
_NORMS = (torch.ops.aten.batch_norm.default, torch.ops.aten.instance_norm.default)
_RUNNING_MEAN = 3
_ATTENTION, _DROPOUT_P = torch.ops.aten.scaled_dot_product_attention.default, 4


class SwitchedGraph(torch.fx.GraphModule):
    """A graph that follows train() and eval(), and whose constants follow the device of its parameters."""

    def train(self, mode: bool = True) -> "SwitchedGraph":
        """Set training or evaluation mode, in the operators too."""
        super().train(mode)
        switch(self, mode)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "SwitchedGraph":
        """A copy, constants and counters outside the state dict where they were."""
        copied = super().__deepcopy__(memo)
        for name, part in self.named_modules():
            copied.get_submodule(name)._non_persistent_buffers_set.update(part._non_persistent_buffers_set)
        assert isinstance(copied, SwitchedGraph)
        return copied

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "SwitchedGraph":
        """Hook of nn.Module behind to(), cuda() and double()."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        devices = {tensor.device for tensor in (*self.parameters(), *self.buffers())}
        if len(devices) == 1:
            _retarget(self, devices.pop())
        return self


def set_mode(module: torch.nn.Module, training: bool) -> None:
    """Put a model in training or evaluation mode, graphs and their copies among its parts included."""
    module.train(training)
    for part in module.modules():
        if isinstance(part, torch.fx.GraphModule):
            switch(part, training)


def switch(graph: torch.fx.GraphModule, training: bool) -> None:
    """Rewrite the flags that mark_modes found."""
    changed = False
    for node in graph.graph.nodes:
        if MODES in node.meta:
            at, in_training, in_evaluation = node.meta[MODES]
            wanted = in_training if training else in_evaluation
            if node.args[at] != wanted:
                node.update_arg(at, wanted)
                changed = True
    if changed:
        graph.recompile()


def in_training(module: torch.nn.Module) -> tuple[str, ...]:
    """Names of the parts of a model that are in training mode: modules, and batch norms of a graph that normalise by the batch."""
    found = [name or type(part).__name__ for name, part in module.named_modules() if part.training]
    for part in module.modules():
        if isinstance(part, torch.fx.GraphModule):
            norms = (node for node in part.graph.nodes if node.target in _NORMS and not _without_statistics(node))
            found += [node.name for node in norms if node.args[_FLAGS[node.target]]]
    return tuple(dict.fromkeys(found))


def mark_modes(graph: torch.fx.Graph) -> bool:
    """Note on every operator that has a mode what its flag is in training and in evaluation.

    A graph exported in evaluation mode has all flags off but those of layers that drop out always: these stay on. True if
    it was exported in training mode (all flags on). Raises Refused for a batch norm in training mode beside layers in
    evaluation mode: evaluation would change its statistics.
    """
    flagged = [node for node in graph.nodes if node.target in _FLAGS and not _without_statistics(node)]
    flags = {bool(node.args[_FLAGS[node.target]]) for node in flagged}
    for node in flagged:
        at = _FLAGS[node.target]
        if not node.args[at] or len(flags) == 1:
            node.meta[MODES] = (at, True, False)
        elif node.target in _NORMS:
            message = f"batch norm {node.name} changes its running statistics, while other layers are in evaluation mode"
            raise Refused("bad_model", message, hint="Call model.eval() before exporting.", detail="stateful")
    trained = flags == {True}
    for node in graph.nodes:
        if node.target is _ATTENTION and len(node.args) > _DROPOUT_P and node.args[_DROPOUT_P] and flags != {False}:
            node.meta[MODES] = (_DROPOUT_P, node.args[_DROPOUT_P], 0.0)
            trained = trained or not flags
    return trained


def _without_statistics(node: torch.fx.Node) -> bool:
    """A norm that keeps no running statistics works the same in both modes."""
    return node.target in _NORMS and node.args[_RUNNING_MEAN] is None


def _retarget(graph: torch.fx.GraphModule, device: torch.device) -> None:
    """Make every node that names a device name this one."""
    changed = False

    def here(argument: Any) -> Any:
        nonlocal changed
        if isinstance(argument, torch.device) and argument != device:
            changed = True
            return device
        return argument

    for node in graph.graph.nodes:
        node.args, node.kwargs = map_aggregate(node.args, here), map_aggregate(node.kwargs, here)
    if changed:
        graph.recompile()
