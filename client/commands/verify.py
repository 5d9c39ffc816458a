"""`sparring verify`: does a report hold?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from sparring.commands import options as o


def verify(
    report: Annotated[Path, typer.Argument(help="A report.zip, as `sparring report export` writes it.", show_default=False)],
    as_json: o.Json = False,
) -> None:
    """Check every break that a report claims: inside eps and bounds, and misclassified, with one forward pass.

    Runs on this machine, without a service. Ends with 0 when every claim holds, 1 when one does not or the file was tampered with,
    2 when it could not be checked.
    """
    import json
    import subprocess

    from sparring.errors import SparringError
    from sparring.local import command
    from sparring.paths import check_readable

    check_readable(report)
    ended = subprocess.run(command("workers.verify", str(report)), capture_output=True, text=True, check=False)
    try:
        told = json.loads(ended.stdout.strip().rpartition("\n")[2])
    except ValueError:
        last = "\n".join(ended.stderr.strip().splitlines()[-3:])
        hint = "It needs what attacks need: pip install 'sparring[worker]', and sparring[onnx] for ONNX models"
        raise SparringError(f"{report} could not be checked:\n{last}", hint) from None
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    if told["code"] == SparringError.exit_code:
        raise SparringError(told["message"], told["hint"])
    if not as_json:
        _show(told)
    raise typer.Exit(told["code"])


def _show(told: dict[str, Any]) -> None:
    from sparring import show

    show.tell(f"{('HOLDS', 'DOES NOT HOLD')[told['code']]}: {told['message']}")
    if "checks" in told:
        rows = [
            (each["threat"], each["claimed"], each["confirmed"], each["borderline"], each["failed"], ", ".join(each["refuted"]))
            for each in told["checks"]
        ]
        numbers = ("claimed", "confirmed", "borderline", "refuted")
        show.table("", ("rows", *numbers, "such as"), rows, numbers)
        show.facts((name, told[name]) for name in ("model", "data", "judge"))
    if told["code"] == 1:
        show.say(told["hint"])
