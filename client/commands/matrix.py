"""`sparring matrix`: what breaks one model, shown to every other."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from sparring.commands import options as o
from sparring.commands.evaluate import Norm, Sides, job_maker

if TYPE_CHECKING:
    from sparring.contract.report import Report
    from sparring.sdk import Client

Models = Annotated[list[str], typer.Argument(metavar="MODEL…", help="Two model files or more, or ids of uploads.", show_default=False)]


def matrix(
    models: Models,
    data: Annotated[str, typer.Option(help="A dataset file (.npz), or the id or sha256 of an upload.", show_default=False)],
    eps: Annotated[str, typer.Option(help="How far the attacker may go, 8/255 or 0.5.", show_default=False)],
    norm: Norm = "linf",
    attack: Annotated[str, typer.Option(help="The white-box attack run on every model: fgsm, pgd, mifgsm …")] = "mifgsm",
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
    """How well do the adversarial examples of one model transfer to the others?

    One evaluation for each model: the attack on it, and on every other model, shown to it. A row of the table is attacked, a column
    answers; on the diagonal the attacker has the model's own weights.
    """
    from sparring import local, parsing
    from sparring.contract.jobs import Evaluate
    from sparring.contract.specs import DataSpec, ModelSpec
    from sparring.errors import UsageProblem
    from sparring.progress import cancelled_if_interrupted, follow

    if len(models) < 2:
        raise UsageProblem("One model is given, and there is nothing to transfer to", "Name two models or more")
    threats = parsing.threats(norm, [eps], (), targeted=False)
    own = parsing.attack(attack)
    parsing.attack(f"transfer:attack={own.kind}")  # refuses what cannot be run on a surrogate
    model_spec = parsing.spec(ModelSpec, arch=arch, mean=mean, std=std, layout=layout, classes=classes)
    data_spec = parsing.spec(DataSpec, bounds=bounds, scale=scale, layout=data_layout)
    sides = [Sides(model, data, model_spec, data_spec) for model in models]
    reports = []
    with local.service(device) as client:
        refs = _uploaded(client, sides)
        if len(set(refs)) < len(refs):
            raise UsageProblem("A model is named twice", "Name each model once")
        for target in refs:
            others = [{"kind": "transfer", "attack": own, "models": (other,)} for other in refs if other != target]
            make = job_maker(Evaluate, threats=threats, attacks=(own, *others), rows=rows, seed=seed, device=device, timeout=timeout)
            job = client.jobs.submit(make(model=target, data=sides[0].data_ref))
            with cancelled_if_interrupted(client, job.id):
                follow(client, job.id)
            reports.append(client.jobs.report(job.id))
    _show(reports, as_json=as_json)


def _uploaded(client: "Client", sides: list[Sides]) -> list[str]:
    """References of the models, in their order; the data go up once."""
    found = []
    for side in sides:
        side.data_ref = sides[0].data_ref
        told = side.upload(client)
        sides[0].data_ref = told["data"]
        found.append(told["model"])
    return found


def _show(reports: "list[Report]", *, as_json: bool) -> None:
    """A line for each model attacked, a column for each that answers."""
    from sparring import show
    from sparring.reports import text

    size = len(reports)
    scores = [[reports[target].threats[0].each[_place(source, target)].robust for target in range(size)] for source in range(size)]
    titles = [f"{at + 1} {report.model.name}" for at, report in enumerate(reports)]
    if as_json:
        told = [[score.model_dump() for score in line] for line in scores]
        threat = reports[0].threats[0].threat.model_dump(mode="json")
        typer.echo(json.dumps({"threat": threat, "models": [report.model.id for report in reports], "robust": told}, indent=2))
        return
    columns = ("attacked", *(f"on {at + 1}" for at in range(size)))
    lines = [(titles[at], *map(text.percent, line)) for at, line in enumerate(scores)]
    clean = ("no attack", *(text.percent(report.clean) for report in reports))
    show.table(f"robust accuracy within {text.threat_text(reports[0].threats[0].threat)}", columns, [*lines, clean], columns[1:])


def _place(source: int, target: int) -> int:
    """Where the attack on model `source` stands in the report of `target`: its own comes first."""
    return 0 if source == target else source + 1 - (source > target)
