"""`sparring export`: weights and the code that builds the model become one .pt2 file that needs no code."""

from pathlib import Path
from typing import Annotated, Any

import typer


def export(
    factory: Annotated[str, typer.Argument(metavar="MODULE:FACTORY", help="What builds the model: nets:small.", show_default=False)],
    weights: Annotated[
        Path, typer.Argument(help="Its weights: a state dict or .safetensors; - if the factory loads them.", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(help="The .pt2 file to write.", show_default=False)],
    shape: Annotated[str, typer.Option(help="Shape of one row: 1,28,28.", show_default=False)],
) -> None:
    """Export a model to .pt2, the best format to upload. Runs your code, on this machine, in a process of its own."""
    import subprocess

    from sparring import show
    from sparring.errors import SparringError, UsageProblem
    from sparring.local import command
    from sparring.paths import check_folder, check_readable

    if out.suffix.lower() != ".pt2":
        raise UsageProblem(f"{out}: what is written is a .pt2, whatever its name", f"Call it {out.with_suffix('.pt2').name}")
    check_folder(out)
    if str(weights) != "-":
        check_readable(weights)
    arguments = (factory, str(weights), str(out), "--shape", shape)
    ended = subprocess.run(command("workers.export", *arguments), capture_output=True, text=True, check=False)
    told = _told(ended.stdout)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines()[-5:]
        kind = UsageProblem if ended.returncode == UsageProblem.exit_code else SparringError
        raise kind(str(told.get("message") or "\n".join(lines) or f"{factory} could not be exported"), str(told.get("hint", "")))
    show.facts((name, _listed(value)) for name, value in told.items() if name not in ("ok", "findings"))
    for finding in told.get("findings", ()):
        show.say(f"warning: {finding['message']} {finding['hint']}".strip())


def _listed(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _told(stdout: str) -> dict[str, Any]:
    """The one line of JSON that the process prints last; nothing where it died before."""
    import json

    try:
        told = json.loads(stdout.strip().rpartition("\n")[2])
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
