"""`sparring models` and `sparring datasets`: push, list, show, rm."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparring.commands import options as o

if TYPE_CHECKING:
    from sparring.sdk import Client, Uploads

_JSON, _V2 = "JSON of its own", "Open inference protocol (v2)"
File = Annotated[str, typer.Argument(metavar="FILE", show_default=False)]
Name = Annotated[str | None, typer.Option(help="What to call it; the file's name unless given.", show_default=False)]


def _family(noun: str, prefix: str, family: "Callable[[Client], Uploads[Any, Any]]") -> typer.Typer:
    """What models and datasets have in common: list, show, rm."""
    by_ref = typer.Argument(
        metavar="ID", help="Its id or the sha256 of its bytes.", show_default=False, callback=o.ident(prefix, sha256=True)
    )
    by_id = typer.Argument(metavar="ID", help="Its id.", show_default=False, callback=o.ident(prefix))
    app = typer.Typer(no_args_is_help=True, help=f"{noun.capitalize()}s: push, list, show, rm.")

    @app.command("list", help=f"All {noun}s, the newest first.")
    def list_uploads(as_json: o.Json = False) -> None:
        from sparring import local, show

        with local.service() as client:
            found = family(client).list()
            show.as_json(found) if as_json else show.uploads(found)

    @app.command("show", help=f"One {noun}.")
    def show_upload(ref: Annotated[str, by_ref], as_json: o.Json = False) -> None:
        from sparring import local, show

        with local.service() as client:
            info = family(client).get(ref)
        typer.echo(info.model_dump_json(indent=2)) if as_json else show.upload(info)

    @app.command("rm", help=f"Delete a {noun}.")
    def remove_upload(ident: Annotated[str, by_id]) -> None:
        from sparring import local

        with local.service() as client:
            family(client).delete(ident)

    return app


models = _family("model", "mdl", lambda client: client.models)
datasets = _family("dataset", "dat", lambda client: client.datasets)


@models.command("push")
def push_model(
    file: File,
    name: Name = None,
    arch: o.Arch = None,
    mean: o.Mean = None,
    std: o.Std = None,
    layout: o.Layout = None,
    classes: o.Classes = None,
    as_json: o.Json = False,
) -> None:
    """Upload a model: .pt2, .safetensors, .onnx or a state dict."""
    from sparring import local, parsing, show
    from sparring.contract.specs import ModelSpec
    from sparring.paths import check_readable
    from sparring.peek import lacks_architecture

    spec = parsing.spec(ModelSpec, arch=arch, mean=mean, std=std, layout=layout, classes=classes)
    check_readable(Path(file))
    with local.service() as client:
        info = client.models.upload(file, name, spec)
    typer.echo(info.model_dump_json(indent=2)) if as_json else show.upload(info)
    wrong, hint = lacks_architecture(info)
    if wrong:
        show.say(f"warning: {wrong}; a job on it fails. {hint}")


@models.command("add-endpoint")
def add_endpoint(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where it is asked; with --v2 the server's address.", show_default=False)],
    name: Annotated[str, typer.Option(help="What to call it.")] = "model",
    request: Annotated[str | None, typer.Option(help='What is posted, as JSON: {"inputs": "{rows}"}.', rich_help_panel=_JSON)] = None,
    response: Annotated[str | None, typer.Option(help="JSON pointer to the predictions: /scores.", rich_help_panel=_JSON)] = None,
    v2: Annotated[str | None, typer.Option(help="The model's name, by the open inference protocol.", rich_help_panel=_V2)] = None,
    version: Annotated[str | None, typer.Option(help="The model's version.", rich_help_panel=_V2)] = None,
    source: Annotated[str | None, typer.Option("--input", help="Name of its input.", rich_help_panel=_V2)] = None,
    output: Annotated[str | None, typer.Option("--output", help="Name of its output; the first one.", rich_help_panel=_V2)] = None,
    gives: Annotated[str | None, typer.Option(help="scores, probabilities or labels.")] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="Sent with every request, Authorization=secret:NAME; repeatable.", show_default=False)
    ] = None,
    shape: Annotated[str | None, typer.Option(help="Shape of a row as it wants it, 3,32,32.")] = None,
    batch: Annotated[int | None, typer.Option(help="Rows in a request, at most.")] = None,
    connections: Annotated[int | None, typer.Option(help="Requests under way at once, at most.")] = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second, at most.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds in which a request must be answered.")] = None,
    retries: Annotated[int | None, typer.Option(help="Times a failed request is tried again.")] = None,
    mean: o.Mean = None,
    std: o.Std = None,
    layout: o.Layout = None,
    classes: o.Classes = None,
    as_json: o.Json = False,
) -> None:
    """Register a model that is an HTTP endpoint, to be attacked by queries. The service's operator must have allowed it."""
    from sparring import local, parsing, show
    from sparring.contract.specs import ModelReading

    spec = parsing.spec(ModelReading, mean=mean, std=std, layout=layout, classes=classes)
    json_alone = {"request": request, "response": response}
    v2_alone = {"model": v2, "version": version, "input": source, "output": output}
    common = {"gives": gives, "shape": shape, "batch": batch, "connections": connections, "rate": rate, "timeout": timeout}
    endpoint = parsing.endpoint({"url": url, "retries": retries, **common}, json_alone, v2_alone, header or ())
    with local.service() as client:
        info = client.models.register(endpoint, name, spec)
    typer.echo(info.model_dump_json(indent=2)) if as_json else show.upload(info)


@datasets.command("push")
def push_dataset(
    file: File, name: Name = None, bounds: o.Bounds = None, scale: o.Scale = None, layout: o.DataLayout = None, as_json: o.Json = False
) -> None:
    """Upload a dataset: an .npz with x and, if there are labels, y."""
    from sparring import local, parsing, show
    from sparring.contract.specs import DataSpec
    from sparring.paths import check_readable
    from sparring.peek import check_bounds

    spec = parsing.spec(DataSpec, bounds=bounds, scale=scale, layout=layout)
    check_readable(Path(file))
    check_bounds(Path(file), spec)
    with local.service() as client:
        info = client.datasets.upload(file, name, spec)
    typer.echo(info.model_dump_json(indent=2)) if as_json else show.upload(info)
