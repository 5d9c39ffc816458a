"""`sparring models` and `sparring datasets`: push, list, show, rm."""

from typing import Annotated

import typer

from sparring.commands import options as o

models = typer.Typer(no_args_is_help=True, help="Models: push, list, show, rm.")
datasets = typer.Typer(no_args_is_help=True, help="Datasets: push, list, show, rm.")

File = Annotated[str, typer.Argument(metavar="FILE", show_default=False)]
Ref = Annotated[str, typer.Argument(metavar="ID", help="Its id or the sha256 of its bytes.", show_default=False)]
Name = Annotated[str | None, typer.Option(help="What to call it; the file's name unless given.", show_default=False)]


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

    spec = parsing.spec(ModelSpec, arch=arch, mean=mean, std=std, layout=layout, classes=classes)
    with local.service() as client:
        info = client.models.upload(file, name, spec)
    typer.echo(info.model_dump_json(indent=2)) if as_json else show.upload(info)


@models.command("list")
def list_models() -> None:
    """All models, the newest first."""
    from sparring import local, show

    with local.service() as client:
        show.uploads(client.models.list())


@models.command("show")
def show_model(ref: Ref, as_json: o.Json = False) -> None:
    """One model."""
    from sparring import local, show

    with local.service() as client:
        info = client.models.get(ref)
    typer.echo(info.model_dump_json(indent=2)) if as_json else show.upload(info)


@models.command("rm")
def remove_model(ref: Ref) -> None:
    """Delete a model."""
    from sparring import local

    with local.service() as client:
        client.models.delete(ref)


@datasets.command("push")
def push_dataset(
    file: File, name: Name = None, bounds: o.Bounds = None, scale: o.Scale = None, layout: o.DataLayout = None, as_json: o.Json = False
) -> None:
    """Upload a dataset: an .npz with x and, if there are labels, y."""
    from sparring import local, parsing, show
    from sparring.contract.specs import DataSpec

    spec = parsing.spec(DataSpec, bounds=bounds, scale=scale, layout=layout)
    with local.service() as client:
        info = client.datasets.upload(file, name, spec)
    typer.echo(info.model_dump_json(indent=2)) if as_json else show.upload(info)


@datasets.command("list")
def list_datasets() -> None:
    """All datasets, the newest first."""
    from sparring import local, show

    with local.service() as client:
        show.uploads(client.datasets.list())


@datasets.command("show")
def show_dataset(ref: Ref, as_json: o.Json = False) -> None:
    """One dataset."""
    from sparring import local, show

    with local.service() as client:
        info = client.datasets.get(ref)
    typer.echo(info.model_dump_json(indent=2)) if as_json else show.upload(info)


@datasets.command("rm")
def remove_dataset(ref: Ref) -> None:
    """Delete a dataset."""
    from sparring import local

    with local.service() as client:
        client.datasets.delete(ref)
