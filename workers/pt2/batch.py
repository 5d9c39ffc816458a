"""Graphs exported for one batch size, freed from it where that provably changes nothing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from sparring.workers.errors import Refused
from sparring.workers.pt2.integers import SIZES
from sparring.workers.pt2.mode import SwitchedGraph
from sparring.workers.pt2.shapes import BUDGET, ShapeRun, check_shapes, on_meta

HINT = 'Export with a dynamic batch: torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},)).'
ROWS = 5
MAX_ROWS = 1024
"""Largest batch at export that is tried: the original runs once at its own size."""
TOLERANCE = 1e-4
"""Largest difference allowed between the freed graph and the original, relative to the largest output."""
OTHER = 7
"""Rows more than at export, on which the batch axis of every tensor shows itself."""
_VIEWS = {torch.ops.aten.view.default, torch.ops.aten.reshape.default, torch.ops.aten._unsafe_view.default}
_COPIES = {torch.ops.aten.expand.default, torch.ops.aten.repeat.default}


def free_batch(module: SwitchedGraph, size: int, row: tuple[int, ...], dtype: torch.dtype) -> None:
    """Let every view that has the exported batch `size` written into it follow the batch instead; in place.

    A number may equal the batch by accident, so the result is compared, row by row, with what the graph computed at its
    own batch size. Raises Refused (`static_batch`) where they differ, or where other batches still fail.
    """
    if size > MAX_ROWS:
        message = f"the graph was exported for batches of {size}; at most {MAX_ROWS} can be freed"
        raise Refused("bad_model", message, hint=HINT, detail="static_batch")
    check_shapes(module, row, dtype, batches=(size,), budget=BUDGET)
    x = torch.rand((ROWS, *row), generator=torch.Generator().manual_seed(0), dtype=torch.float32).to(dtype)
    with torch.no_grad():
        expected = _at_own_size(module, size, x)
        try:
            _follow(module, size, row, dtype)
            check_shapes(module, row, dtype)
        except Refused as error:
            message = f"the graph was exported for batches of {size} alone and cannot be run on others: {error.reason.message}"
            raise Refused("bad_model", message, hint=HINT, detail="static_batch") from error
        found = module(x)
    # a result that is no batch of rows is refused later, for what it is
    if expected is not None and not _same(found, expected):
        message = f"the graph was exported for batches of {size} alone; at other sizes its rows come out different"
        raise Refused("bad_model", message, hint=HINT, detail="static_batch")


def _at_own_size(module: SwitchedGraph, size: int, x: torch.Tensor) -> torch.Tensor | None:
    """The module's answers for rows `x`, asked `size` rows at a time, the last batch filled up with its first row."""
    answers = []
    for start in range(0, len(x), size):
        part = x[start : start + size]
        answer = module(torch.cat([part, part[:1].expand(size - len(part), *part.shape[1:])]))
        if not isinstance(answer, torch.Tensor) or answer.shape[:1] != (size,):
            return None
        answers.append(answer[: len(part)])
    return torch.cat(answers)


def _follow(module: SwitchedGraph, size: int, row: tuple[int, ...], dtype: torch.dtype) -> None:
    """Find the views that hold the batch size, by running on another number of rows, and make them follow it."""
    state, graph = on_meta(module), module.graph
    (x,) = (node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(x):
        rows = graph.call_function(torch.ops.aten.sym_size.int, (x, 0))
    own = ShapeRun(module, state)
    own.run(torch.empty((size, *row), dtype=dtype, device="meta"))
    _Freeing(module, state, own.shapes, rows, size).run(torch.empty((size + OTHER, *row), dtype=dtype, device="meta"))
    module.recompile()


class _Freeing(ShapeRun):
    """A pass with more rows than at export, which repairs every view before it runs it."""

    def __init__(self, module: SwitchedGraph, state: Mapping[str, torch.Tensor], own: Mapping[Node, Any], rows: Node, size: int) -> None:
        super().__init__(module, state)
        self.own, self.rows, self.size = own, rows, size

    def run_node(self, n: Node) -> Any:
        if n.target in _VIEWS | _COPIES and isinstance(n.args[0], Node) and isinstance(n.args[1], Sequence):
            shape = list(n.args[1])
            before, now = self.own[n.args[0]], self.shapes[n.args[0]]
            axes = [axis for axis, (old, new) in enumerate(zip(before, now, strict=True)) if old != new]
            if not axes and n.target in _COPIES and shape and shape[0] == self.size:
                n.update_arg(1, [self.rows, *shape[1:]])
            elif len(axes) == 1 and n.target is torch.ops.aten.expand.default:
                shape[axes[0] + len(shape) - len(before)] = -1
                n.update_arg(1, shape)
            elif len(axes) == 1 and n.target in _VIEWS:
                n.update_arg(1, self._viewed(n, shape, math.prod(before[: axes[0]]), before[axes[0]]))
        return super().run_node(n)

    def _viewed(self, n: Node, shape: list[Any], start: int, length: int) -> list[Any]:
        """The sizes of a view of a tensor whose batch axis is `length` long and lies behind `start` elements.

        A view keeps the order of elements, so the batch is in an axis that begins there, lies within, or reaches across;
        one of exactly the exported size is preferred, then one that begins at the same place.
        """
        own = self.own[n]
        found = []
        for axis, size in enumerate(own):
            begins = math.prod(own[:axis])
            within = start <= begins < start * length
            across = begins < start and begins * size >= start * self.size
            if size % self.size == 0 and (begins == start or within or across):
                found.append((size != self.size, begins != start, axis))
        if not found:
            return shape
        *_, axis = min(found)
        if not isinstance(shape[axis], Node) and shape[axis] != -1:
            shape[axis] = self._scaled(n, own[axis] // self.size)
        return shape

    def _scaled(self, n: Node, times: int) -> Node:
        """A node for `times` the batch, computed just before `n`."""
        if times == 1:
            return self.rows
        multiply = SIZES["_operator.mul"]
        with n.graph.inserting_before(n):
            made = n.graph.call_function(multiply, (self.rows, times))
        self.env[made] = multiply(self.env[self.rows], times)
        return made


def _same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    scale = float(expected.nan_to_num().abs().max())
    return torch.allclose(found, expected, rtol=0.0, atol=TOLERANCE * max(scale, 1e-6), equal_nan=True)
