"""`sparring keys`: list, create, revoke."""

from typing import Annotated

import typer

from sparring.commands import options as o

app = typer.Typer(no_args_is_help=True, help="API keys: list, create, revoke.")


@app.command("list")
def list_keys(as_json: o.Json = False) -> None:
    """All keys, without their secrets."""
    from sparring import local, show

    with local.service() as client:
        found = client.keys.list()
    show.as_json(found) if as_json else show.keys(found)


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.", show_default=False)],
    days: Annotated[int | None, typer.Option(min=1, max=36500, help="For how long it works; for ever unless given.")] = None,
    as_json: o.Json = False,
) -> None:
    """Make a key. Its secret is shown this once: on stdout, and nothing else."""
    from datetime import UTC, datetime, timedelta

    from sparring import local, show

    with local.service() as client:
        made = client.keys.create(name, datetime.now(UTC) + timedelta(days=days) if days else None)
    if as_json:
        typer.echo(made.model_dump_json(indent=2))
    else:
        typer.echo(made.key)
        show.say(f"{made.id} ({made.name}): keep the secret, it is not shown again")


@app.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(metavar="ID", help="Its id, not its secret.", show_default=False, callback=o.ident("key"))],
) -> None:
    """From now on the key opens nothing."""
    from sparring import local

    with local.service() as client:
        client.keys.revoke(key)
