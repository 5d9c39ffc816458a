"""`sparring webhooks`: list, create, rm."""

from typing import Annotated

import typer

from sparring.commands import options as o

app = typer.Typer(no_args_is_help=True, help="Webhooks, told of the end of every job: list, create, rm.")


@app.command("list")
def list_webhooks(as_json: o.Json = False) -> None:
    """All webhooks, without their secrets, and how their messages fare."""
    from sparring import local, show

    with local.service() as client:
        found = client.webhooks.list()
    show.as_json(found) if as_json else show.webhooks(found)


@app.command("create")
def create_webhook(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where messages are posted: https://host/path.", show_default=False)],
    as_json: o.Json = False,
) -> None:
    """Make a webhook. The secret that signs its messages is shown this once: on stdout, and nothing else."""
    from sparring import local, show

    with local.service() as client:
        made = client.webhooks.create(url)
    if as_json:
        typer.echo(made.model_dump_json(indent=2))
    else:
        typer.echo(made.secret)
        show.say(f"{made.id}: keep the secret, it is not shown again")


@app.command("rm")
def remove_webhook(
    webhook: Annotated[str, typer.Argument(metavar="ID", help="Its id.", show_default=False, callback=o.ident("whk"))],
) -> None:
    """Nothing is posted there any more."""
    from sparring import local

    with local.service() as client:
        client.webhooks.delete(webhook)
