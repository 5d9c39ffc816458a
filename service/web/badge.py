"""A badge: the robust accuracy that was last measured, as a small picture."""

from sparring.reports.text import rate
from sparring.service.web.measured import Measured
from sparring.service.web.view import render

_WIDTH = 6.6
"""Pixels of a letter, about."""
_COLOURS = {"reliable": "#2a6336", "unchecked": "#625e57", "suspect": "#8a4a00", "invalid": "#a01f1f"}


def svg(measured: Measured | None) -> str:
    """The badge; its colour is that of the trust, because a number alone says nothing."""
    label = f"robust ({measured.threat})" if measured else "robust"
    said = f"{rate(measured.robust)} {measured.trust}" if measured else "not measured"
    left, right = (round(len(word) * _WIDTH + 12) for word in (label, said))
    colour = _COLOURS[measured.trust] if measured else _COLOURS["unchecked"]
    return render("badge", label=label, said=said, left=left, right=right, colour=colour)
