"""The `sparring` command. Exit codes: 0 done, 2 it could not be done, 4 bad usage, 130 interrupted."""

import signal
import sys
from typing import NoReturn

import typer

from sparring.commands import catalogue, doctor, evaluate, export, jobs, keys, report, stack, uploads
from sparring.errors import SparringError, UsageProblem

app = typer.Typer(
    name="sparring", no_args_is_help=True, pretty_exceptions_enable=False, help="The opponent a model trains against: how robust is it?"
)
for command in (evaluate.evaluate, evaluate.craft, stack.up, stack.demo, export.export, doctor.doctor):
    app.command()(command)
app.add_typer(uploads.models, name="models")
app.add_typer(uploads.datasets, name="datasets")
app.add_typer(jobs.app, name="jobs")
app.add_typer(keys.app, name="keys")
app.add_typer(report.app, name="report")
app.add_typer(catalogue.attacks, name="attacks")
app.add_typer(catalogue.suites, name="suites")


@app.command()
def version() -> None:
    """The version of this command."""
    from sparring import __version__

    typer.echo(f"sparring {__version__}")


def _terminated(_number: int, _frame: object) -> NoReturn:
    # An exception, so that what was started is taken down on the way out.
    raise SystemExit(128 + signal.SIGTERM)


def main() -> NoReturn:
    """Run the command line and end the process."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except SparringError as error:
        from sparring.show import say

        say(f"error: {error}")
        if error.hint:
            say(f"  {error.hint}")
        sys.exit(error.exit_code)
    except SystemExit as ended:
        # The parser's own code for bad usage is 2, which here means that no report could be made.
        sys.exit(UsageProblem.exit_code if ended.code == SparringError.exit_code else ended.code)
    raise SystemExit
