"""Many reports as a folder for any static host: an index by model, and each report's files. No script, nothing fetched."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from html import escape
from itertools import groupby
from typing import NamedTuple

from sparring.contract.report import Report, ThreatResult
from sparring.reports import text
from sparring.reports.compare import Compared, Incomparable, Told, compared
from sparring.reports.frame import begun

_COLUMNS = ("Evaluated", "Data", "Within", "Robust accuracy", "95 % interval", "Clean accuracy", "Change, points", "Trust", "Files")
_NUMBERS = frozenset(_COLUMNS[3:7])
_NOTE = (
    "Robust accuracy is the share of rows that no attack broke; it is an upper bound, which a stronger attack may lower. "
    "A change is given where the same rows were attacked in the same way before, with its paired 95 % interval."
)


class Since(NamedTuple):
    """What changed since an earlier report of the same model."""

    earlier: int
    """Its place among the reports."""
    found: tuple[Compared, ...]


class Listed(NamedTuple):
    """A report in the index."""

    report: Report
    files: tuple[tuple[str, str], ...]
    """What each file is called, and its address beside the index; the page comes first."""
    since: Since | None = None


def since(reports: Sequence[Told]) -> tuple[Since | None, ...]:
    """Of each report, what changed since the last one before it of a model of that name that can be compared with it."""
    order = sorted(range(len(reports)), key=lambda at: _when(reports[at].report))
    found: list[Since | None] = [None] * len(reports)
    for place, at in enumerate(order):
        name = reports[at].report.model.name
        before = (earlier for earlier in reversed(order[:place]) if reports[earlier].report.model.name == name)
        found[at] = next(_comparable(reports, before, at), None)
    return tuple(found)


def _comparable(reports: Sequence[Told], before: Iterable[int], at: int) -> Iterator[Since]:
    for earlier in before:
        try:
            yield Since(earlier, compared(reports[earlier], reports[at]))
        except Incomparable:
            continue


def index(listed: Sequence[Listed]) -> str:
    """The page that lists reports by model, the newest first."""
    newest = sorted(listed, key=lambda each: _when(each.report), reverse=True)
    places = {name: at for at, name in reversed(list(enumerate(each.report.model.name for each in newest)))}
    models = [(name, list(group)) for name, group in groupby(sorted(newest, key=lambda e: places[e.report.model.name]), _name)]
    counted = f"{_counted(len(listed), 'report')} of {_counted(len(models), 'model')}"
    return f"""{begun("Robustness reports")}\
<body class="listing">
<header>
<p class="eyebrow">Sparring</p>
<h1>Robustness reports</h1>
<p class="byline">{counted}</p>
</header>
<main>
{"".join(_model(at, name, each) for at, (name, each) in enumerate(models))}</main>
<footer><p>{_NOTE}</p></footer>
</body>
</html>
"""


def _model(at: int, name: str, listed: Sequence[Listed]) -> str:
    head = "".join(f'<th scope="col"{_right(column)}>{column}</th>' for column in _COLUMNS)
    return f"""<section aria-labelledby="model-{at}"><h2 id="model-{at}"><bdi>{_shown(name)}</bdi></h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="model-{at}"><table>
<thead><tr>{head}</tr></thead>
{"".join(map(_report, listed))}</table></div></section>
"""


def _report(each: Listed) -> str:
    report, span = each.report, f' rowspan="{len(each.report.threats)}"'
    when = f'<a href="{escape(each.files[0][1])}"><time datetime="{_when(report).isoformat()}">{_when(report):%Y-%m-%d %H:%M}</time></a>'
    first = f'<th scope="rowgroup"{span}>{when}</th><td{span}><bdi>{_shown(report.data.name)}</bdi></td>'
    links = " · ".join(f'<a href="{escape(address)}">{_shown(said)}</a>' for said, address in each.files)
    lines = [_threat(each, at, result) for at, result in enumerate(report.threats)]
    lines[0] = f"{first}{lines[0]}<td{span}>{links}</td>"
    return f"<tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody>\n"


def _threat(each: Listed, at: int, result: ThreatResult) -> str:
    cells = (
        *(_shown(text.threat_text(result.threat)), f"<strong>{text.rate(result.worst)}</strong>", text.interval(result.worst)),
        *(text.rate(each.report.clean), _change(each.since, at)),
    )
    level = f'<td><span class="trust {result.trust.level}">{result.trust.level}</span></td>'
    return "".join(f"<td{_right(column)}>{cell}</td>" for column, cell in zip(_COLUMNS[2:7], cells, strict=True)) + level


def _change(changed: Since | None, at: int) -> str:
    found = next((one for one in changed.found if one.threats and one.threats[1] == at), None) if changed else None
    if found is None:
        return "–"
    low, high = (100 * end for end in found.flips.interval)
    return f"{0 - 100 * found.flips.drop:+.1f} [{0 - high:+.1f}, {0 - low:+.1f}]"


def _name(each: Listed) -> str:
    return each.report.model.name


def _when(report: Report) -> datetime:
    return report.provenance.finished


def _right(column: str) -> str:
    return ' class="n"' if column in _NUMBERS else ""


def _counted(count: int, what: str) -> str:
    return f"{text.number(count)} {what}{'' if count == 1 else 's'}"


def _shown(value: str) -> str:
    return escape(text.visible(value))
