"""`sparring compare`: two reports, row by row."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparring.commands import options as o

if TYPE_CHECKING:
    from sparring.reports.compare import Compared

_SHOWN = 20

Side = Annotated[str, typer.Argument(help="A report.zip, or the id of a job.", show_default=False)]


def compare(
    before: Side,
    after: Side,
    html: Annotated[Path | None, typer.Option(help="A page to write, with pictures of rows that flipped.", show_default=False)] = None,
    as_json: o.Json = False,
) -> None:
    """What changed from one report to another on the same rows: which rows flipped, by how much accuracy dropped, and whether by chance.

    The interval is a paired one of 95 %, p is that of McNemar's exact test. Ends with 4 where the two cannot be compared, and says why.
    """
    import json

    from sparring.errors import UsageProblem
    from sparring.reports import compare_html
    from sparring.reports.compare import Incomparable, compared
    from sparring.reports.pictures import Unreadable
    from sparring.told import told

    if html is not None:
        _check(html)
    with told(before, after, pictures=html is not None) as (first, second):
        try:
            found = compared(first, second)
            if html is not None:
                _write(html, compare_html.page(first, second, found))
        except Incomparable as error:
            hint = "Evaluate both models on the same rows, by the same attacks, under the same threats"
            raise UsageProblem(f"{before} and {after} cannot be compared: {error}", hint) from error
        except Unreadable as error:
            raise UsageProblem(f"{before} or {after} is damaged: {error}", "Write it again, or leave --html out") from error
    if as_json:
        typer.echo(json.dumps([_written(each) for each in found], indent=2))
    else:
        _show(found)


def _check(page: Path) -> None:
    from sparring.errors import UsageProblem
    from sparring.paths import check_folder, kind_of

    check_folder(page, "--html ")
    if kind_of(page, "--html ") == "folder":
        raise UsageProblem(f"--html {page}: this is a folder, not a file")


def _write(page: Path, content: str) -> None:
    from sparring import show
    from sparring.errors import UsageProblem

    try:
        page.write_text(content, encoding="utf-8")
    except OSError as error:
        raise UsageProblem(f"--html {page} cannot be written: {error.strerror}") from error
    show.say(f"wrote {page}")


def _written(each: "Compared") -> dict[str, Any]:
    scores = {name: getattr(each, name).model_dump() for name in ("before", "after", "flips")}
    return {"what": each.what, **scores, "lost": each.lost, "won": each.won}


def _show(found: "tuple[Compared, ...]") -> None:
    from sparring import show
    from sparring.reports import text

    columns = ("what", "before", "after", "lost", "won", "drop", "95 % interval", "p")
    rows = [
        (
            each.what,
            text.rate(each.before),
            text.rate(each.after),
            each.flips.lost,
            each.flips.won,
            f"{100 * each.flips.drop:+.1f} points",
            f"[{', '.join(f'{round(100 * end, 1) + 0.0:.1f}' for end in each.flips.interval)}]",
            f"{each.flips.p:.2g}",
        )
        for each in found
    ]
    show.table("", columns, rows, columns[1:])
    for each in found:
        for name, flipped in (("lost", each.lost), ("won", each.won)):
            if flipped:
                more = f" and {len(flipped) - _SHOWN} more" if len(flipped) > _SHOWN else ""
                show.tell(f"{each.what}, {name}: rows {', '.join(map(str, flipped[:_SHOWN]))}{more}")
