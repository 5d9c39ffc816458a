"""Options that several commands share."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

_UPLOAD_MODEL = "Declared about the model file"
_ENDPOINT = "Budget of a model that is an endpoint"
_UPLOAD_DATA = "Declared about the data file"


def ident(prefix: str, *, sha256: bool = False) -> Callable[[str], str]:
    """Checks an argument before anything is started for it: an id with this prefix, or if allowed the sha256 of an upload."""

    def check(given: str) -> str:
        if re.fullmatch(rf"{prefix}_[0-9a-z]{{20}}", given) or (sha256 and re.fullmatch(r"(sha256:)?[0-9a-f]{64}", given)):
            return given
        from sparring.errors import UsageProblem

        more = ", or a sha256" if sha256 else ""
        what = "A secret" if given.startswith("svc_") else repr(given)
        raise UsageProblem(
            f"{what} is no id of this kind", f"It is {prefix}_ and 20 letters and digits{more}; `list` shows those there are"
        )

    return check


FORMS = ".html .json .md .csv .parquet .npz .zip card.md robustbench.json"
"""Endings of files that a report is written to."""

Job = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.", show_default=False, callback=ident("job"))]

Arch = Annotated[str | None, typer.Option(help="Architecture of bare weights: mlp, lenet5, cnn, resnet18.", rich_help_panel=_UPLOAD_MODEL)]
Mean = Annotated[str | None, typer.Option(help="Subtracted from the input: 0.49,0.48,0.45.", rich_help_panel=_UPLOAD_MODEL)]
Std = Annotated[str | None, typer.Option(help="Divides the centred input: 0.2,0.2,0.2.", rich_help_panel=_UPLOAD_MODEL)]
Layout = Annotated[str | None, typer.Option(help="Order of axes the model expects: NCHW or NHWC.", rich_help_panel=_UPLOAD_MODEL)]
Classes = Annotated[int | None, typer.Option(help="Number of classes, checked against the model's output.", rich_help_panel=_UPLOAD_MODEL)]

Bounds = Annotated[str | None, typer.Option(help="Lowest and highest legal value, 0,1, or none.", rich_help_panel=_UPLOAD_DATA)]
Scale = Annotated[float | None, typer.Option(help="Stored numbers are multiplied by this.", rich_help_panel=_UPLOAD_DATA)]
DataLayout = Annotated[str | None, typer.Option(help="Order of axes in which rows are stored: NCHW or NHWC.", rich_help_panel=_UPLOAD_DATA)]

Training = Annotated[
    str | None,
    typer.Option(
        help="Rows the attacker trains on (.npz or id); unless given, the data's rows that are not evaluated.", show_default=False
    ),
]
Rows = Annotated[int | None, typer.Option(help="Only the first so many rows of the data.")]
Seed = Annotated[int, typer.Option(help="Seed of every random draw.")]
Asked = Annotated[int | None, typer.Option(help="Rows that may be asked of an endpoint, at most.", rich_help_panel=_ENDPOINT)]
Sent = Annotated[
    int | None, typer.Option(help="Requests that may be sent to an endpoint, repeated ones included.", rich_help_panel=_ENDPOINT)
]
Device = Annotated[str, typer.Option(help="auto, cpu or gpu.")]
Timeout = Annotated[int | None, typer.Option(help="Seconds after which the job is given up.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout and nothing else.")]
Output = Annotated[
    list[Path] | None,
    typer.Option(
        "-o",
        "--output",
        help=f"A file to write: {FORMS}; repeatable.",
        show_default=False,
    ),
]
