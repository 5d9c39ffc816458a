"""`sparring jobs`: list, show, watch, cancel, retry, rm."""

from itertools import islice
from typing import Annotated

import typer

from sparring.commands import options as o

app = typer.Typer(no_args_is_help=True, help="Jobs: list, show, watch, cancel, retry, rm.")


@app.command("list")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only those queued, running, succeeded, failed, cancelled or timed_out.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: o.Json = False,
) -> None:
    """Jobs, the newest first."""
    from sparring import local, show
    from sparring.contract.states import State
    from sparring.parsing import checked

    wanted = checked(State, state, "--state") if state else None
    with local.service() as client:
        found = islice(client.jobs.list(state=wanted), limit)
        show.as_json(found) if as_json else show.jobs(found)


@app.command("show")
def show_job(job: o.Job, as_json: o.Json = False) -> None:
    """One job: its state, settings and files."""
    from sparring import local, show

    with local.service() as client:
        found = client.jobs.get(job)
    typer.echo(found.model_dump_json(indent=2)) if as_json else show.job(found)


@app.command("watch")
def watch_job(job: o.Job) -> None:
    """Follow a job to its end; Ctrl-C leaves it running."""
    from sparring import local, show
    from sparring.progress import follow

    with local.service() as client:
        client.jobs.get(job)
        show.job(follow(client, job))


@app.command("cancel")
def cancel_job(job: o.Job) -> None:
    """Cancel a queued or running job."""
    from sparring import local, show

    with local.service() as client:
        found = client.jobs.cancel(job)
    show.tell(f"{found.id} {'is being cancelled' if found.state == 'running' else found.state}")


@app.command("retry")
def retry_job(job: o.Job) -> None:
    """Queue a failed, cancelled or timed out job anew, with the same files and settings."""
    from sparring import local, show

    with local.service() as client:
        why = client.jobs.get(job).reason
        found = client.jobs.retry(job)
    show.tell(f"{found.id} {found.state}, attempt {found.attempt}")
    if why and why.code in ("bad_model", "bad_data", "unsupported", "budget_spent"):
        way = "a new job with a larger budget" if why.code == "budget_spent" else "a new upload and a new job"
        show.say(f"warning: it failed as {why.code}, and is likely to do so again: only {way} can change that")


@app.command("rm")
def remove_job(job: o.Job) -> None:
    """Forget a finished job with its report."""
    from sparring import local

    with local.service() as client:
        client.jobs.delete(job)
