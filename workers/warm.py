"""What the end of every job needs and nobody should wait for: done by a spare while it waits for its order.

Nothing here computes with torch, so that row processes can be forked after it.
"""

import importlib

from sparring.contract.report import CurvePoint, Score
from sparring.reports.figures import curve_svg
from sparring.reports.html import environment
from sparring.reports.text import Curve


def warm() -> None:
    """Load what writes rows, compile the page's template, and draw once: fonts are looked for at the first drawing."""
    for name in ("pyarrow.compute", "pyarrow.parquet"):  # here, because they start a thread and take time
        importlib.import_module(name)
    environment().get_template("report.html.j2")
    points = tuple(CurvePoint(norm="linf", eps=eps, robust=Score(count=1, total=1)) for eps in (0.0, 1.0))
    curve_svg(Curve("linf", False, points), "warm")
