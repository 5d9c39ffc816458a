"""`sparring compare`: two reports, row by row."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparring.commands import options as o

if TYPE_CHECKING:
    from sparring.reports.compare import Compared

_SHOWN = 20

Side = Annotated[str, typer.Argument(help="A report.zip, or the id of a job.", show_default=False)]


def compare(before: Side, after: Side, as_json: o.Json = False) -> None:
    """What changed from one report to another on the same rows: which rows flipped, by how much accuracy dropped, and whether by chance.

    The interval is a paired one of 95 %, p is that of McNemar's exact test. Ends with 4 where the two cannot be compared, and says why.
    """
    import json

    from sparring.errors import UsageProblem
    from sparring.reports.compare import Incomparable, compared
    from sparring.told import told

    with told(before, after) as (first, second):
        try:
            found = compared(first, second)
        except Incomparable as error:
            hint = "Evaluate both models on the same rows, by the same attacks, under the same threats"
            raise UsageProblem(f"{before} and {after} cannot be compared: {error}", hint) from error
    if as_json:
        typer.echo(json.dumps([_written(each) for each in found], indent=2))
    else:
        _show(found)


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
            f"[{100 * each.flips.interval[0]:.1f}, {100 * each.flips.interval[1]:.1f}]",
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
