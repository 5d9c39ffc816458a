"""The drawings of a report: accuracy against eps as SVG, rows of image data as PNG. The only file that imports matplotlib."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import RcKeyType
from numpy.typing import NDArray

from sparring.contract.retrained import Epoch
from sparring.reports.moved import Spread
from sparring.reports.png import png
from sparring.reports.text import Asking, Curve, threat_text

_COLOURS = {"#010203": "--ink", "#010204": "--muted", "#010205": "--hairline", "#010206": "--accent"}
"""Stand-ins that the page's own colours replace, so that one drawing serves light and dark."""
_INK, _MUTED, _HAIRLINE, _ACCENT = _COLOURS

_STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sparring",
    "font.size": 9,
    "text.color": _MUTED,
    "axes.edgecolor": _HAIRLINE,
    "axes.labelcolor": _MUTED,
    "xtick.color": _HAIRLINE,
    "ytick.color": _HAIRLINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "grid.color": _HAIRLINE,
    "grid.linewidth": 0.6,
}


_DASHES = ((0, ()), (0, (5, 2)), (0, (1, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
"""Lines that tell attacks apart without colour."""
_FILLS = ((_ACCENT, 1.0), (_INK, 0.6), (_ACCENT, 0.5), (_INK, 0.25), (_ACCENT, 0.25), (_MUTED, 1.0))
"""Bars that tell attacks apart by how dark they are."""


def _end(curve: Curve) -> float | None:
    """Where the axis of eps ends: a few far rows must not press all others against its beginning."""
    far = [m.curve[-1].eps if m.median_distance is None else 1.5 * m.median_distance for m in curve.minimal if m.curve]
    return max([*far, *(1.05 * p.eps for p in curve.points)], default=0) or None


def _draw_minimal(axes: Axes, curve: Curve, end: float) -> None:
    """A line for each attack that looks for the smallest change: what it leaves at each radius."""
    for at, found in enumerate(m for m in curve.minimal if m.curve and m.curve[0].robust.total):
        eps, rates = [p.eps for p in found.curve], [100 * p.robust.rate for p in found.curve]
        dashes = _DASHES[at % len(_DASHES)]
        axes.plot([*eps, max(end, eps[-1])], [*rates, rates[-1]], color=_INK, linewidth=0.9, linestyle=dashes, label=found.name)


def curve_svg(curve: Curve, ident: str) -> str:
    """Draw one norm's accuracy against eps with its Wilson band, as an `<svg>` to stand inside a page.

    Args:
        curve: the points, those of no rows left out; and lines for attacks that look for the smallest change.
        ident: begins every id in the drawing, so that several fit in one page.

    Returns:
        The same bytes for the same points. Colours are the page's custom properties `--ink --muted --hairline --accent`.
    """
    points = [p for p in curve.points if p.robust.total]
    eps = [p.eps for p in points]
    rates = [100 * p.robust.rate for p in points]
    with mpl.rc_context(_STYLE):
        page, axes = _page()
        axes.fill_between(
            eps, [100 * p.robust.interval[0] for p in points], [100 * p.robust.interval[1] for p in points], color=_ACCENT, alpha=0.16, lw=0
        )
        axes.plot(eps, rates, color=_ACCENT, linewidth=1.6, marker="o", markersize=4, clip_on=False, label="worst case")
        end = _end(curve)
        if curve.minimal and end:
            _draw_minimal(axes, curve, end)
            _legend(page)
        axes.set(xlim=(0, end), xlabel=f"eps ({curve.title}), in units of the data", ylabel="accuracy, %")
        axes.locator_params(axis="x", nbins=6)
        return _for_page(page, f"Accuracy against eps, norm {curve.title}; the numbers stand in the table beside it.", ident)


def queries_svg(asking: Asking, ident: str) -> str:
    """Draw how many of the rows that were tried had fallen after so many queries, a line for each attack; as `curve_svg` does."""
    with mpl.rc_context(_STYLE):
        page, axes = _page()
        end = max(each.by_queries[-1].queries for each in asking.each)
        for at, each in enumerate(asking.each):
            stops = [1, *(point.queries for point in each.by_queries), end]
            fallen = [0, *(100 * point.broken / each.entered for point in each.by_queries), 100 * each.by_queries[-1].broken / each.entered]
            axes.step(stops, fallen, where="post", color=_INK, linewidth=0.9, linestyle=_DASHES[at % len(_DASHES)], label=each.name)
        _legend(page)
        axes.set(xscale="log", xlim=(1, max(end, 2)), xlabel="queries of each row", ylabel="rows broken, %")
        told = f"Rows broken against queries, {threat_text(asking.threat)}; the numbers stand in the table beside it."
        return _for_page(page, told, ident)


def distances_svg(spread: Spread, ident: str) -> str:
    """Draw how far broken rows were moved: a bar for each part of eps, parted by the attack that broke them; as `curve_svg` does."""
    with mpl.rc_context(_STYLE):
        page, axes = _page()
        end = spread.ends[-1]
        below = np.zeros(len(spread.ends) - 1)
        for at, each in enumerate(spread.each):
            colour, alpha = _FILLS[at % len(_FILLS)]
            above = below + each.distances
            axes.stairs(above, spread.ends, baseline=below, fill=True, color=colour, alpha=alpha, linewidth=0, label=each.name)
            below = above
        _legend(page)
        axes.set(xlim=(0, end or None), ylim=(0, 1.05 * below.max()), ylabel="rows broken", axisbelow=True)
        axes.set_xlabel(f"distance ({spread.threat.norm}), in units of the data")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.locator_params(axis="x", nbins=6)
        told = f"Distances of broken rows, {threat_text(spread.threat)}; the numbers stand in the table beside it."
        return _for_page(page, told, ident)


def training_svg(curve: Sequence[Epoch], ident: str) -> str:
    """Draw how a model did while it was trained: accuracy on the validation rows above, the loss below; an `<svg>` as of `curve_svg`."""
    lines = (("clean", "clean", _INK, _DASHES[0]), ("single", "single step", _MUTED, _DASHES[1]), ("robust", "PGD", _ACCENT, _DASHES[0]))
    with mpl.rc_context(_STYLE):
        page = Figure(figsize=(4.2, 3.4), layout="constrained")
        accuracy, loss = page.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        for field, name, colour, dashes in lines:
            known = [(epoch.epoch, 100 * score.rate) for epoch in curve if (score := getattr(epoch, field)) is not None]
            if known:
                accuracy.plot(*zip(*known, strict=True), color=colour, linewidth=1.4, linestyle=dashes, label=name)
        known = [(epoch.epoch, epoch.loss) for epoch in curve if epoch.loss is not None]
        if known:
            loss.plot(*zip(*known, strict=True), color=_MUTED, linewidth=1.2)
        accuracy.set(ylim=(0, 100), ylabel="accuracy, %")
        accuracy.set_yticks(range(0, 101, 20))
        loss.set(xlabel="epoch", ylabel="loss, nats")
        loss.locator_params(axis="x", nbins=6, integer=True)
        loss.locator_params(axis="y", nbins=3)
        for axes in (accuracy, loss):
            axes.grid(axis="y")
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(length=0, pad=6)
        if accuracy.lines:
            page.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8, handlelength=2.4)
        return _for_page(page, "Accuracy on the validation rows, and the loss, by epoch.", ident)


def _page() -> tuple[Figure, Axes]:
    page = Figure(figsize=(4.2, 2.7), layout="constrained")
    axes = page.add_subplot()
    axes.set(ylim=(0, 100))
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="y")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, pad=6)
    return page, axes


def _legend(page: Figure) -> None:
    page.set_figheight(3.1)
    page.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8, handlelength=2.4)


def _for_page(page: Figure, label: str, ident: str) -> str:
    file = io.StringIO()
    page.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    # As written the style speaks to every element of the page around it.
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{ident}-", svg)
    svg = re.sub(r"font: ([0-9.]+px) [^;\"]*", r"font-size: \1", svg)
    for stand_in, name in _COLOURS.items():
        svg = svg.replace(stand_in, f"var({name})")
    opening = f'<svg role="img" aria-label="{label}" style="stroke-linejoin: round"'
    return re.sub(r'<svg(?: (?:width|height)="[^"]*")*', opening, svg, count=1).strip()


def picture_png(picture: NDArray[np.uint8]) -> bytes:
    """A picture as PNG; the same bytes for the same picture.

    Args:
        picture: uint8, (H, W), (H, W, 1) for grey or (H, W, 3) for colour.

    Raises:
        ValueError: another type or shape.
    """
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] not in (1, 3)):
        raise ValueError(f"a picture is uint8 of shape (H, W), (H, W, 1) or (H, W, 3), not {picture.dtype} of {picture.shape}")
    height, width, channels = (*picture.shape, 1)[:3]
    return png(picture.tobytes(), width, height, channels)


def amplified(delta: NDArray[Any], scale: float) -> NDArray[np.uint8]:
    """A perturbation made visible: mid-grey (128) where nothing changed, black at -scale, white at +scale and beyond.

    Args:
        delta: x' - x in units of the data, any shape.
        scale: the change that reads as full contrast, such as eps for linf or the largest change for l2; 0 gives all grey.
    """
    part = np.clip(np.asarray(delta, dtype=np.float64) / scale, -1, 1) if scale > 0 else np.zeros(np.shape(delta))
    return np.clip(np.rint(128 + 128 * part), 0, 255).astype(np.uint8)
