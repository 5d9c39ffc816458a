"""`sparring retrain`: a model that breaks in, one that holds out, with proof."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparring.commands import options as o
from sparring.commands.evaluate import Data, Model, Norm, Sides, Threats, job_maker

if TYPE_CHECKING:
    from sparring.contract.threat import Threat

_TRAINING, _MEASURED = {"rich_help_panel": "How it is trained"}, {"rich_help_panel": "How it is measured"}
Defenses = Annotated[
    list[str],
    typer.Option("--defense", help="A defense, pgd:eps=8/255 or vat; repeatable: they are tabled side by side.", show_default=False),
]
_WRITTEN = "The model (.pt2 .safetensors .onnx .pt), the report (.html .json .md), the test rows (.npz); repeatable."
Outputs = Annotated[list[Path] | None, typer.Option("-o", "--output", help=_WRITTEN, show_default=False)]
Unlabelled = Annotated[str | None, typer.Option(help="Rows without labels to learn from too (.npz or id): vat, lds.", **_TRAINING)]
Surrogates = Annotated[
    list[str] | None,
    typer.Option(
        "--surrogate",
        help="A model that ensemble moves rows against too (file, declared about as the model is, or id); repeatable.",
        show_default=False,
        **_TRAINING,
    ),
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the data; 20 unless given.", show_default=False, **_TRAINING)]
_SETTINGS = "Other settings: optimizer=sgd,rate=0.05,schedule=cyclic,augment=flip+shift …"
Settings = Annotated[str, typer.Option(help=_SETTINGS, show_default=False, **_TRAINING)]
Scratch = Annotated[bool, typer.Option("--scratch", help="Begin with fresh weights, not with those of the model.", **_TRAINING)]
Patience = Annotated[
    int | None, typer.Option(help="Stop after so many epochs without a better robust accuracy on the validation rows.", **_TRAINING)
]
Precision = Annotated[str, typer.Option(help="exact, or fast: passes in bfloat16.", **_TRAINING)]
Test = Annotated[
    str | None, typer.Option(help="Rows to measure on (.npz or id); unless given, some of the data are held out.", **_MEASURED)
]
HeldOut = Annotated[float | None, typer.Option(help="Share of the data held out; 0.2 unless given.", show_default=False, **_MEASURED)]
Validation = Annotated[
    float | None, typer.Option(help="Share epochs and defenses are chosen on; 0.1 unless given.", show_default=False, **_MEASURED)
]
Eps = Annotated[
    list[str] | None,
    typer.Option(help="How far the attacker may go; the defenses' eps unless given; repeatable.", show_default=False, **_MEASURED),
]
Suite = Annotated[str, typer.Option(help="The attacks it is measured by.", **_MEASURED)]


def retrain(
    model: Model,
    data: Data,
    defense: Defenses,
    output: Outputs = None,
    unlabelled: Unlabelled = None,
    surrogate: Surrogates = None,
    epochs: Epochs = None,
    training: Settings = "",
    scratch: Scratch = False,
    patience: Patience = None,
    precision: Precision = "exact",
    test: Test = None,
    held_out: HeldOut = None,
    validation: Validation = None,
    norm: Norm = "linf",
    eps: Eps = None,
    threat: Threats = None,
    suite: Suite = "defended",
    rows: o.Rows = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    timeout: o.Timeout = None,
    as_json: o.Json = False,
    arch: o.Arch = None,
    mean: o.Mean = None,
    std: o.Std = None,
    layout: o.Layout = None,
    classes: o.Classes = None,
    bounds: o.Bounds = None,
    scale: o.Scale = None,
    data_layout: o.DataLayout = None,
) -> None:
    """Train a model so that it withstands attack, and measure it before and after on rows that it has not seen.

    The model that did best on the validation rows is written, in the form that was uploaded and as .pt2 and safetensors.
    Ends with 0 when there is a report, 2 when none could be made, 4 on bad usage.
    """
    from sparring import local, outputs, parsing, show
    from sparring.contract.retrain import Retrain
    from sparring.contract.specs import DataSpec, ModelSpec
    from sparring.progress import cancelled_if_interrupted, follow

    wanted = outputs.outputs(output or (), training=True)
    threats: tuple[Threat, ...] = parsing.threats(norm, eps or (), threat or (), targeted=False) if eps or threat else ()
    given = {"epochs": epochs} if epochs is not None else {}
    others = {"unlabelled": unlabelled, "test": test}
    make = job_maker(
        Retrain,
        [name for name, other in others.items() if other],
        defenses=parsing.defenses_against(defense, ["0" * 64 for _ in surrogate or ()]),
        training=parsing.training(training, seed=seed, **given),
        scratch=scratch,
        patience=patience,
        precision=precision,
        held_out=held_out,
        validation=validation,
        threats=threats,
        suite=suite,
        rows=rows,
        seed=seed,
        device=device,
        timeout=timeout,
    )
    model_spec = parsing.spec(ModelSpec, arch=arch, mean=mean, std=std, layout=layout, classes=classes)
    data_spec = parsing.spec(DataSpec, bounds=bounds, scale=scale, layout=data_layout)
    sides = Sides(model, data, model_spec, data_spec, **others)
    rivals = [(given, parsing.reference(given, "mdl")) for given in surrogate or ()]
    with local.service(device) as client:
        uploads = sides.upload(client)
        refs = [ref or sides.uploaded(client, given) for given, ref in rivals]
        job = client.jobs.submit(make(**uploads, defenses=parsing.defenses_against(defense, refs)))
        with cancelled_if_interrupted(client, job.id):
            ended = follow(client, job.id)
        report = client.jobs.retrained(job.id)
        outputs.write(client, ended, wanted)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
        return
    show.retrained(report)
    show.tell(f"\nnew version: {', '.join(ended.models)}")
    show.tell(f"report: sparring report open {job.id}")
