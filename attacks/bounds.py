"""What a model can answer at most: sound bounds over a whole ball, by which rows are proved robust without being attacked.

Intervals run forward (Gowal et al. 2018, 1810.12715); lines run backward from what is asked (CROWN, Zhang et al. 2018,
1811.00866): each curved operator is held between two lines, and the slope that arrives at the input meets the ball's dual norm.
All of it is computed in float64.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from sparring.attacks.norms import Ball
from sparring.attacks.operators import Ends, Lines, Pooled, Unbounded, between, bounded, call, is_curved, is_kinked, traced
from sparring.attacks.rows import per_row, pick

METHOD = "interval arithmetic and linear bounds (CROWN) in float64, with a margin for the judge's rounding"
PLAIN = "interval arithmetic in float64, with a margin for the judge's rounding"
_WIDTHS = (0, 256, 2048)
"""Open entries per row that a layer may have for lines to bound each of them, at the price of two passes; tried in turn."""
_NUMBERS = 2**21  # of all values of the rows that share a pass
_ROUNDING, _SCALE = 16.0, 1e-5


class _Scope(NamedTuple):
    """A ball, and what is known inside it."""

    ball: Ball
    centre: Tensor
    hull: Ends
    boxed: bool
    """The hull is no wider than the ball, so that intervals are exact as far as the first curve."""
    held_back: Tensor
    """(B,) bool: some layer has more open entries than lines may bound."""
    ends: dict[fx.Node, Any]
    lines: dict[fx.Node, Lines | Pooled]


class _Held(torch.autograd.Function):
    """A value held between two others: a slope that arrives goes on to the lower one where it is positive, else to the upper."""

    @staticmethod
    def forward(ctx: Any, lower: Tensor, upper: Tensor, gaps: list[Tensor]) -> Tensor:
        """The lower one; `gaps` is told on the way back what choosing the upper one takes off."""
        ctx.gap, ctx.gaps = lower - upper, gaps
        return lower.clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, None]:
        """Split by sign."""
        below, above = slopes[0].clamp(min=0), slopes[0].clamp(max=0)
        ctx.gaps.append((above * ctx.gap).flatten(1).sum(1))
        return below, above, None


class Bounded:
    """A model whose answers can be bounded."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        """Trace `model`, (B, …) -> logits (B, K), on a row like the first of `x` (B, …).

        Raises:
            Unbounded: with the reason, where there are no bounds.
        """
        try:
            self._graph = traced(model, x)
            first, answer = x[:1].double(), self._graph.nodes[-1]
            alone, beside = self._run(answer, first), self._run(answer, torch.cat((first, -first, first)))
        except Unbounded:
            raise
        except Exception as error:  # tracing runs the model's own code, which may raise anything
            raise Unbounded(f"the model cannot be traced ({type(error).__name__})") from error
        if not torch.allclose(alone, beside[:1], equal_nan=True):
            raise Unbounded("its rows depend on each other")
        self._size = max(_NUMBERS // self._graph.width, 1)

    def robust(self, ball: Ball, labels: Tensor, rivals: Tensor, judged: Tensor, *, lines: bool = True) -> Tensor:
        """(B,) bool: rows proved robust. Nowhere in the ball does a class of `rivals` (B, K) bool reach the score of `labels` (B,).

        Without `lines` by intervals alone.

        The judge computes in fewer digits: a margin must exceed 16 times the largest difference between its scores on the clean
        row, `judged` (B, K), and ours, and 1e-5 of the largest score.
        """
        with torch.no_grad():
            off = torch.cat([self._run(self._graph.nodes[-1], part.double()) for part in torch.split(ball.centre, self._size)]) - judged
        slack = _ROUNDING * off.abs().amax(1) + _SCALE * judged.double().abs().amax(1)
        proved = torch.zeros_like(labels, dtype=torch.bool)
        rest = torch.arange(len(labels), device=labels.device)
        for width in _WIDTHS if lines else _WIDTHS[:1]:
            left = [rest[:0]]
            for part in filter(len, torch.split(rest, self._size)):
                scope = self._known(pick(ball, part), width)
                proved[part] = self._margins(scope, labels[part], rivals[part], lines=lines) > slack[part]
                left.append(part[scope.held_back & ~proved[part]])
            rest = torch.cat(left)
        return proved

    def margins(self, ball: Ball, labels: Tensor, rivals: Tensor, width: int = _WIDTHS[-1]) -> Tensor:
        """(B,) float64: a lower bound of the score of `labels` less that of any class of `rivals`; infinite without rivals.

        Layers with up to `width` open entries per row are bounded by lines too, the others by intervals alone.
        """
        return self._margins(self._known(ball, width), labels, rivals)

    @torch.no_grad()
    def _margins(self, scope: _Scope, labels: Tensor, rivals: Tensor, *, lines: bool = True) -> Tensor:
        rows, rival = torch.nonzero(rivals).unbind(1)
        ends: Ends = scope.ends[self._graph.scores]
        least = ends.low.new_full((len(labels),), float("inf"))
        for row, other in zip(torch.split(rows, self._size), torch.split(rival, self._size), strict=True):
            apart = ends.low[row, labels[row]] - ends.high[row, other]
            if lines:
                seeds = least.new_zeros(len(row), rivals.shape[1])
                seeds.scatter_(1, labels[row, None], 1.0).scatter_(1, other[:, None], -1.0)
                apart = torch.maximum(apart, self._reach(self._graph.scores, row, seeds, scope)[0])
            least.scatter_reduce_(0, row, apart, "amin")
        return least

    @torch.no_grad()
    def logits(self, ball: Ball, width: int = _WIDTHS[-1]) -> Ends:
        """Bounds (B, K) of every logit."""
        scope = self._known(ball, width)
        ends: Ends = scope.ends[self._graph.scores]
        return self._tightened(self._graph.scores, ends, torch.ones_like(ends.low, dtype=torch.bool), scope)

    @torch.no_grad()
    def _known(self, ball: Ball, width: int) -> _Scope:
        """The ends of every value, and the lines around every curve."""
        scope, bent = _scope(ball), False
        ends = scope.ends
        ends.update(self._graph.constants)
        ends[self._graph.nodes[0]] = scope.hull
        for node in self._graph.nodes[1:]:
            if node in ends:
                continue
            if is_curved(node):
                given = node.all_input_nodes[0]
                low, high = ends[given]
                wanted = (low < 0) & (high > 0) if is_kinked(node) else high > low
                if bent or not scope.boxed:
                    many = wanted.flatten(1).sum(1) > width
                    scope.held_back.logical_or_(many)
                    ends[given] = self._tightened(given, ends[given], wanted & ~per_row(many, wanted), scope)
                scope.lines[node], bent = between(node, ends[given]), True
            ends[node] = bounded(node, ends)
            if node is self._graph.scores:
                break
        return scope

    def _tightened(self, node: fx.Node, ends: Ends, wanted: Tensor, scope: _Scope) -> Ends:
        """The entries of a value that are wanted, bounded by lines."""
        rows, at = torch.nonzero(wanted.flatten(1)).unbind(1)
        low, high = ends.low.flatten(1).clone(), ends.high.flatten(1).clone()
        for row, entry in zip(torch.split(rows, self._size), torch.split(at, self._size), strict=True):
            seeds = low.new_zeros(len(row), low.shape[1]).scatter_(1, entry[:, None], 1.0)
            least, most = self._reach(node, row, seeds.reshape(-1, *wanted.shape[1:]), scope)
            low[row, entry] = torch.maximum(low[row, entry], least)
            high[row, entry] = torch.minimum(high[row, entry], most)
        return Ends(torch.minimum(low, high).reshape(wanted.shape), torch.maximum(low, high).reshape(wanted.shape))

    def _reach(self, node: fx.Node, rows: Tensor, seeds: Tensor, scope: _Scope) -> tuple[Tensor, Tensor]:
        """Bounds (N,) of <seeds, value of node> for the balls `rows` (N,) of the scope, by one pass forward and two back."""
        if not len(rows):  # some of torch's convolutions cannot go back through no rows
            return scope.ball.eps[rows], scope.ball.eps[rows]
        gaps: list[Tensor] = []
        with torch.enable_grad():
            x = scope.centre[rows].requires_grad_()
            total = (self._run(node, x, (rows, scope.lines, gaps)) * seeds).flatten(1).sum(1)
        found = []
        for sign in (1.0, -1.0):
            gaps.clear()
            (slope,) = torch.autograd.grad(total, x, torch.full_like(total, sign), retain_graph=sign > 0)
            found.append(sign * total.detach() + _dip(slope, rows, scope) - sum(gaps))
        return found[0], -found[1]

    def _run(self, node: fx.Node, x: Tensor, held: tuple[Tensor, dict[fx.Node, Lines | Pooled], list[Tensor]] | None = None) -> Tensor:
        """The value of a node at x (N, …); with `held` = (rows, lines, gaps), every curve is replaced by its lines."""
        values: dict[fx.Node, Any] = {**self._graph.constants, self._graph.nodes[0]: x}
        for each in self._graph.nodes:
            if each not in values:
                if held is not None and is_curved(each):
                    rows, lines, gaps = held
                    values[each] = _Held.apply(*lines[each].at(values[each.all_input_nodes[0]], rows), gaps)  # type: ignore[no-untyped-call]  # torch's
                else:
                    values[each] = call(each, values.__getitem__)
            if each is node:
                break
        value: Tensor = values[node]
        return value


def _scope(ball: Ball) -> _Scope:
    """The hull is where a single entry may go: the dual norm of a slope that looks at one entry says how far."""
    single = torch.zeros_like(ball.centre).flatten(1)
    single[:, 0] = 1.0
    far = torch.where(ball.eps > 0, ball.eps * ball.norm.dual(single).double(), 0.0)
    centre, reach = ball.centre.double(), per_row(far, ball.centre)
    hull = Ends(torch.maximum(ball.low.double(), centre - reach), torch.minimum(ball.high.double(), centre + reach))
    corner = torch.maximum(hull.high - centre, centre - hull.low)
    boxed = bool((ball.norm.measure(corner) <= ball.eps * (1 + 1e-9)).all())
    return _Scope(ball, centre, hull, boxed, torch.zeros_like(ball.eps, dtype=torch.bool), {}, {})


def _dip(slope: Tensor, rows: Tensor, scope: _Scope) -> Tensor:
    """The least (N,) of <slope, x - centre> over ball and bounds, or less: the better of hull and dual norm."""
    low, high = scope.hull.low[rows] - scope.centre[rows], scope.hull.high[rows] - scope.centre[rows]
    within = torch.minimum(slope * low, slope * high).flatten(1).sum(1)
    return torch.fmax(within, -scope.ball.eps[rows] * scope.ball.norm.dual(slope))
