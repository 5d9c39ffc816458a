"""`sparring report`: show, open, export, bundle."""

from pathlib import Path
from typing import Annotated

import typer

from sparring.commands import options as o

app = typer.Typer(no_args_is_help=True, help="Reports: show, open, export, bundle.")


@app.command("show")
def show_report(job: o.Job, as_json: o.Json = False) -> None:
    """The report as tables in the terminal."""
    from sparring import local, show

    with local.service() as client:
        report = client.jobs.any_report(job)
    typer.echo(report.model_dump_json(indent=2)) if as_json else show.any_report(report)


@app.command("open")
def open_report(job: o.Job) -> None:
    """Download the report's page and open it in a browser."""
    import webbrowser

    from sparring import local, show
    from sparring.errors import UsageProblem

    # A place of its own for each job: it must outlive this command, and opening it again must not leave another copy.
    folder = local.cache_folder() / "reports"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageProblem(f"The folder {folder} cannot be made: {error.strerror}", "Name another with XDG_CACHE_HOME") from error
    with local.service() as client:
        page = client.jobs.artifact(job, "report.html", folder / f"{job}.html")
    show.tell(str(page))
    if not webbrowser.open(page.as_uri()):
        show.say("no browser was found on this machine: open the file in one of yours")


@app.command("export")
def export_report(
    job: o.Job,
    output: Annotated[
        list[Path],
        typer.Option("-o", "--output", help=f"A file: {o.FORMS}, or a model; repeatable."),
    ],
) -> None:
    """Write the report, its rows or its examples to files."""
    from sparring import local
    from sparring.outputs import outputs, write

    with local.service() as client:
        found = client.jobs.get(job)
        client.jobs.any_report(job)
        write(client, found, outputs(output, crafting=found.job.kind == "craft", training=found.job.kind == "retrain"))


@app.command("bundle")
def bundle_reports(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write; new, or empty.", show_default=False)],
    reports: Annotated[
        list[str] | None,
        typer.Argument(metavar="[REPORT]…", help="A report.zip, or the id of a job; all evaluations unless given.", show_default=False),
    ] = None,
) -> None:
    """Write reports as a folder for any static host: an index by model, and each report as a page, JSON and rows."""
    from sparring import show, site

    count = site.write(folder, reports or ())
    show.say(f"wrote {folder}: {count} report{'' if count == 1 else 's'}")
