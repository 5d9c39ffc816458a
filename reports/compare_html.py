"""Two reports compared, as a self-contained page and as parts of another. No script, nothing fetched, everything a user wrote escaped."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape

from sparring.contract.jobs import Evaluate
from sparring.contract.verdict import suite_version
from sparring.reports import flipped, text
from sparring.reports.compare import Compared, Told
from sparring.reports.flipped import Flipped, Flips
from sparring.reports.frame import begun

_COLUMNS = ("Rows right", "Before", "After", "Change, points", "95 % interval", "Lost", "Won", "p (McNemar)")
STATISTICS = (
    "Lost rows were right before and are not now, won ones the other way round. The interval is a paired one of the change; p is that of "
    "McNemar's exact test, the chance of so uneven a split if a row that flips did so either way alike."
)
"""What the numbers of the table mean."""


def page(before: Told, after: Told, found: Sequence[Compared]) -> str:
    """What changed from one report to the other, as one page that opens, mails, archives and prints anywhere.

    Raises:
        Unreadable: a pictures.zip is damaged.
    """
    names = [f"<bdi>{_shown(told.report.model.name)}</bdi>" for told in (before, after)]
    on = f'<span class="on">on <bdi>{_shown(before.report.data.name)}</bdi></span>'
    title = f"{_shown(before.report.model.name)} and {_shown(after.report.model.name)} compared"
    return f"""{begun(title)}\
<body>
<header>
<p class="eyebrow">Sparring comparison</p>
<h1>{" → ".join(names)} {on}</h1>
<p class="byline">{_byline(before)}</p>
</header>
<main>
<section aria-labelledby="changed"><h2 id="changed">What changed</h2><div>
{table(found)}
<p class="note">{STATISTICS}</p>
</div></section>
<section aria-labelledby="flipped"><h2 id="flipped">Rows that flipped</h2><div>
{pictures(before, after, found)}
</div></section>
<section aria-labelledby="models"><h2 id="models">Models</h2><div class="columns">
{_model("Before", before)}
{_model("After", after)}
</div></section>
</main>
<footer><p>Made by Sparring. Intervals are for rows drawn independently.</p></footer>
</body>
</html>
"""


def table(found: Sequence[Compared]) -> str:
    """The statistics as a table that may be scrolled sideways."""
    numbers = "".join(f'<th scope="col" class="n">{column}</th>' for column in _COLUMNS[1:])
    rows = "\n".join(map(_line, found))
    return f"""<div class="scroll" tabindex="0" role="region" aria-label="What changed"><table>
<thead><tr><th scope="col">{_COLUMNS[0]}</th>{numbers}</tr></thead>
<tbody>
{rows}
</tbody>
</table></div>"""


def pictures(before: Told, after: Told, found: Sequence[Compared]) -> str:
    """The rows that flipped: their numbers, and pictures of some. Raises Unreadable."""
    flips = flipped.flipped(before, after, found)
    parts = [f'<p class="note">{_shown(flipped.remark(before, after, flips))}</p>', *map(_flips, flips)]
    return "\n".join(parts) if flips else "<p>None.</p>"


def _line(each: Compared) -> str:
    low, high = (100 * end for end in each.flips.interval)
    tone = " good" if each.flips.drop < 0 else " bad" if each.flips.drop > 0 else ""
    cells = (
        *((text.rate(each.before), ""), (text.rate(each.after), ""), (f"{0 - 100 * each.flips.drop:+.1f}", tone)),
        *((f"[{0 - high:+.1f}, {0 - low:+.1f}]", ""), (str(len(each.lost)), ""), (str(len(each.won)), ""), (f"{each.flips.p:.2g}", "")),
    )
    numbers = "".join(f'<td class="n{extra}">{cell}</td>' for cell, extra in cells)
    return f'<tr><th scope="row" class="keep">{_shown(each.what)}</th>{numbers}</tr>'


def _flips(flips: Flips) -> str:
    shown = "".join(map(_figure, flips.shown))
    some = f"; {len(flips.shown)} of them below" if 0 < len(flips.shown) < len(flips.rows) else ""
    single = " single" if flips.shown and not any(one.adversarial for one in flips.shown) else ""
    count = f"{text.number(len(flips.rows))} row{'s' if len(flips.rows) > 1 else ''}"
    return f"""<h3>{_shown(flips.what)}, {flips.word}</h3>
<p class="flips">{count}: {flips.listed}{some}</p>
<div class="examples{single}">{shown}</div>"""


def _figure(one: Flipped) -> str:
    kinds = (
        (one.original, f"Row {one.row} as it is"),
        (one.perturbation, f"What was added to row {one.row}, amplified"),
        (one.adversarial, f"Row {one.row} with the perturbation"),
    )
    images = "".join(f'<img src="data:image/png;base64,{b64encode(png).decode()}" alt="{said}">' for png, said in kinds if png)
    said = f"before: {_shown(one.before)}<br>after: {_shown(one.after)}"
    return (
        f'<figure><div class="triple">{images}</div><figcaption><b>row {one.row}</b><br>label {one.label}<br>{said}</figcaption></figure>'
    )


def _byline(told: Told) -> str:
    job = told.report.job
    suite = f" · attacks: {_shown(suite_version(job))}" if isinstance(job, Evaluate) else ""
    return f"{text.number(told.report.clean.total)} rows{suite} · seed {job.seed}"


def _model(title: str, told: Told) -> str:
    model, run = told.report.model, told.report.provenance
    facts = (("name", model.name), ("id", model.id or ""), ("sha256", model.sha256), ("evaluated", run.finished.isoformat(" ", "seconds")))
    rows = "".join(f"<div><dt>{name}</dt><dd>{_shown(value)}</dd></div>" for name, value in facts if value)
    return f'<div><h3>{title}</h3><dl class="facts">{rows}</dl></div>'


def _shown(value: str) -> str:
    return escape(text.visible(value))
