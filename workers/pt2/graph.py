"""From the JSON graph to a torch.fx.GraphModule whose parameters bear their original names."""

import keyword
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Graph, Node

from sparring.workers.errors import Refused, shown
from sparring.workers.pt2 import arguments
from sparring.workers.pt2 import schema as json
from sparring.workers.pt2.archive import malformed
from sparring.workers.pt2.integers import SIZES
from sparring.workers.pt2.mode import SwitchedGraph
from sparring.workers.pt2.operators import ASSERTIONS, OPERATORS

COUNTER = "num_batches_tracked"
"""Buffer of batch norms that counts training batches; nothing is computed from it."""
LOGITS = "Export a model that returns one tensor of logits (rows, classes)."
ONE_INPUT = "Export a model that takes one tensor of rows."
MAX_NODES = json.MAX_NODES + json.MAX_TENSORS
"""Of the finished graph: operations, weights, and every part that is taken from a result of several."""
MAX_ARGUMENTS = 20 * json.MAX_NODES
"""Of all operations together, every item of a list counted: torch.fx writes them out as a program."""
_TAKEN = frozenset(dir(SwitchedGraph(torch.nn.Module(), Graph()))) - frozenset(dir(torch.nn.Module()))
"""What a graph module has in addition to other modules: `code`, `graph`, `meta` …"""
_IGNORED = frozenset({"pin_memory", "layout"})
Tensors = Mapping[str, torch.Tensor]


def build(program: json.Program, weights: Tensors, constants: Tensors) -> tuple[SwitchedGraph, json.TensorMeta]:
    """The graph as a module of one input, and what that input looked like at export.

    Raises Refused (unsupported_op, shape_mismatch, malformed) naming the node or the entry at fault.
    """
    _check_size(program.graph_module.graph.nodes)
    root, graph, names = torch.nn.Module(), Graph(), {}
    entry: json.TensorMeta | None = None
    temporary: list[str] = []
    counters: set[str] = set()
    for spec in program.graph_module.signature.input_specs:
        if spec.user_input is not None:
            if entry is not None:
                raise _shape("the model takes several inputs", ONE_INPUT)
            name, entry = _entry(spec.user_input.arg, program.graph_module.graph)
            names[name] = graph.placeholder("x")
            continue
        name, path, tensor = _state(spec, weights, constants)
        if spec.parameter is None and not (spec.buffer and spec.buffer.persistent):
            temporary.append(path)
        if path.endswith(COUNTER):
            counters.add(name)
        _place(root, path, tensor)
        names[name] = graph.create_node("get_attr", path, name=f"p_{path}")
    if entry is None:
        raise _shape("the model takes no input", ONE_INPUT)
    for node in program.graph_module.graph.nodes:
        _add(graph, node, names, counters)
    graph.output(_result(program.graph_module.signature, names))
    return _module(root, graph, temporary), entry


def _check_size(nodes: list[json.Node]) -> None:
    given = [content for node in nodes for argument in node.inputs for content in argument.arg.values()]
    if sum(1 + len(content) for content in given if isinstance(content, list)) + len(given) > MAX_ARGUMENTS:
        raise _too_large(f"{MAX_ARGUMENTS} arguments")


def _too_large(more_than: str) -> Refused:
    return Refused("bad_model", f"the graph has more than {more_than}", hint="Upload a smaller model.", detail="too_large")


def _shape(message: str, hint: str) -> Refused:
    return Refused("bad_model", message, hint=hint, detail="shape_mismatch")


def _entry(argument: json.Argument, graph: json.Graph) -> tuple[str, json.TensorMeta]:
    kind, given = arguments.only(argument)
    if kind != "as_tensor":
        raise _shape("the model takes an input that is not a tensor", ONE_INPUT)
    name = arguments.name_of(given)
    return name, graph.looks(name)


def _state(spec: json.InputSpec, weights: Tensors, constants: Tensors) -> tuple[str, str, torch.Tensor]:
    """Name in the graph, place in the module and value of a parameter, buffer or constant."""
    if spec.state is None:
        raise Refused("unsupported", "the model takes an input that is neither tensor nor weight", detail="input_kind")
    name, path = spec.state
    tensor = constants.get(path) if spec.tensor_constant else weights.get(path, constants.get(path))
    if tensor is None:
        raise malformed(f"the archive has no values for {shown(path)}")
    if isinstance(tensor, torch.nn.Parameter) != (spec.parameter is not None):
        raise malformed(f"graph and weights disagree on whether {shown(path)} is a parameter")
    return name, path, tensor


def _place(root: torch.nn.Module, path: str, tensor: torch.Tensor) -> None:
    """Hang a tensor into the module tree, making the folders on the way."""
    *folders, leaf = path.split(".")
    first = (*folders, leaf)[0]
    if first in _TAKEN:
        message = f"a graph has an attribute {shown(first)} of its own, so that no layer, parameter or buffer can bear that name"
        raise Refused("unsupported", message, hint=f"Rename {shown(first)} in the model and export it again.", detail="parameter_name")
    if any(keyword.iskeyword(part) for part in (*folders, leaf)):
        message = f"the name {shown(path)} has a word of Python in it"
        raise Refused("unsupported", message, hint="Rename the layer.", detail="parameter_name")
    try:
        for folder in folders:
            if folder not in root._modules:
                root.add_module(folder, torch.nn.Module())
            root = root.get_submodule(folder)
        if isinstance(tensor, torch.nn.Parameter):
            root.register_parameter(leaf, tensor)
        else:
            root.register_buffer(leaf, tensor)
    except (KeyError, TypeError, AttributeError) as error:
        raise malformed(f"the name {shown(path)} cannot be used for a parameter or buffer") from error


def _add(graph: Graph, node: json.Node, names: dict[str, Node], counters: set[str]) -> None:
    """Append one operation. Raises Refused for a target that is not on the list."""
    if node.target in ASSERTIONS:
        return
    target = OPERATORS.get(node.target)
    if target is None:
        message = f"the graph calls {shown(node.target)}, which is not on the list of operators"
        hint = "Write the model with ordinary layers and functions of torch, outside `with torch.no_grad()` blocks, and export it again."
        raise Refused("unsupported", message, hint=hint, detail="unsupported_op")
    if node.target == "torch.ops.aten.add_.Tensor" and _counts(node, counters):
        # exported in training mode: a batch norm counts its batches, and nothing reads the count
        names[_bound(node.outputs[0])] = arguments.read(node.inputs[0].arg, names)
        return
    given = {argument.name: arguments.read(argument.arg, names) for argument in node.inputs}
    if len(given) < len(node.inputs):
        raise malformed(f"the graph gives an argument of {node.target} twice")
    if node.target in SIZES:
        made = graph.call_function(target, tuple(given.values()))
    else:
        args, kwargs = _order(node.target, target, given)
        made = graph.call_function(target, args, kwargs)
    _bind(graph, node, made, names)


def _counts(node: json.Node, counters: set[str]) -> bool:
    kind, given = arguments.only(node.inputs[0].arg) if node.inputs else ("", None)
    return kind == "as_tensor" and arguments.name_of(given) in counters


def _order(name: str, target: Any, given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments by position as the operator declares them, gaps filled with its defaults; keyword-only ones by name."""
    declared = target._schema.arguments
    if unknown := given.keys() - {argument.name for argument in declared}:
        raise malformed(f"the graph gives {name} an argument {shown(min(unknown))} that it does not have")
    args: list[Any] = []
    skipped: list[Any] = []
    kwargs = {}
    for argument in declared:
        if argument.kwarg_only:
            if argument.name in given and argument.name not in _IGNORED:
                kwargs[argument.name] = given[argument.name]
        elif argument.name in given:
            args += [*skipped, given[argument.name]]
            skipped = []
        elif argument.has_default_value():
            skipped.append(argument.default_value)
        else:
            raise malformed(f"the graph calls {name} without its argument {argument.name}")
    if any(argument.name == "device" for argument in declared) and not any("Tensor" in str(argument.type) for argument in declared):
        # said aloud, so that it can be turned to another device, and to one without memory
        kwargs["device"] = torch.device("cpu")
    return tuple(args), kwargs


def _bind(graph: Graph, node: json.Node, made: Node, names: dict[str, Node]) -> None:
    """Give the results of an operation their names: one, several, or a list of tensors."""
    outputs = node.outputs
    if len(outputs) == 1 and arguments.only(outputs[0])[0] == "as_tensors":
        outputs = [{"as_tensor": item} for item in arguments.sequence(arguments.only(outputs[0])[1])]
    elif len(outputs) == 1:
        names[_bound(outputs[0])] = made
        return
    if len(graph.nodes) + len(outputs) > MAX_NODES:
        raise _too_large(f"{MAX_NODES} nodes")
    for at, output in enumerate(outputs):
        if arguments.only(output)[0] != "as_none":
            names[_bound(output)] = graph.call_function(operator.getitem, (made, at))


def _bound(output: json.Argument) -> str:
    """The name an output is bound to."""
    kind, given = arguments.only(output)
    if kind == "as_tensor":
        return arguments.name_of(given)
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool") and arguments.only(given)[0] == "as_name":
        return str(given["as_name"])
    raise malformed(f"the graph has a result of the unknown kind {shown(kind)}")


def _result(signature: json.Signature, names: Mapping[str, Node]) -> Node:
    """The node of the model's one output."""
    if len(signature.output_specs) != 1:
        raise _shape(f"the model has {len(signature.output_specs)} outputs", LOGITS)
    output = signature.output_specs[0].user_output
    if output is None:
        message = "the model changes its own state or has a loss for a result"
        raise Refused("bad_model", message, hint="Export it in evaluation mode.", detail="stateful")
    if arguments.only(output.arg)[0] != "as_tensor":
        raise _shape("the model's output is not a tensor", LOGITS)
    result: Node = arguments.read(output.arg, names)
    return result


def _module(root: torch.nn.Module, graph: Graph, temporary: list[str]) -> SwitchedGraph:
    try:
        module = SwitchedGraph(root, graph)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise malformed(f"the graph cannot be written as a program: {type(error).__name__}") from error
    for path in temporary:
        folder, _, leaf = path.rpartition(".")
        module.get_submodule(folder)._non_persistent_buffers_set.add(leaf)
    return module
