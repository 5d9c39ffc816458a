"""`sparring` itself: every command under its name."""

from typing import Annotated

import typer

from sparring.commands import (
    catalogue,
    certify,
    compare,
    doctor,
    evaluate,
    export,
    gate,
    jobs,
    keys,
    matrix,
    report,
    retrain,
    stack,
    uploads,
    verify,
    webhooks,
)

app = typer.Typer(
    name="sparring",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    *(evaluate.evaluate, evaluate.craft, certify.certify, retrain.retrain, matrix.matrix, compare.compare, verify.verify),
    *(stack.up, stack.demo, export.export, doctor.doctor),
):
    app.command()(command)
app.add_typer(uploads.models, name="models")
app.add_typer(uploads.datasets, name="datasets")
app.add_typer(jobs.app, name="jobs")
app.add_typer(keys.app, name="keys")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(report.app, name="report")
app.add_typer(gate.app, name="gate")
app.add_typer(catalogue.attacks, name="attacks")
app.add_typer(catalogue.defenses, name="defenses")
app.add_typer(catalogue.suites, name="suites")


@app.command()
def version() -> None:
    """The version of this command."""
    from sparring import __version__

    typer.echo(f"sparring {__version__}")


def _version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def sparring(
    shown: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """The opponent a model trains against: how robust is it?"""
