"""`sparring evaluate` and `sparring craft`: files or ids in, a report out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparring.commands import options as o

if TYPE_CHECKING:
    from sparring.contract.jobs import Certify, Craft, Evaluate
    from sparring.contract.specs import DataSpec, ModelSpec
    from sparring.outputs import Output
    from sparring.sdk import Client

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model file, or the id or sha256 of an upload.", show_default=False)]
Data = Annotated[str, typer.Argument(metavar="DATA", help="A dataset file (.npz), or the id or sha256 of an upload.", show_default=False)]
Norm = Annotated[str, typer.Option(help="Norm of every --eps: linf, l2, l1, l0.")]
Eps = Annotated[list[str] | None, typer.Option(help="How far the attacker may go, 8/255 or 0.5; repeatable.", show_default=False)]
Threats = Annotated[list[str] | None, typer.Option("--threat", help="A threat in one word, linf:8/255; repeatable.", show_default=False)]
Targeted = Annotated[bool, typer.Option("--targeted", help="A row is broken only when it is taken for its target class.")]

Attacks = Annotated[list[str] | None, typer.Option(help="An attack, pgd:steps=20,alpha=2/255; repeatable.", show_default=False)]
Suite = Annotated[
    str | None,
    typer.Option(help="A pinned list of attacks: quick, standard, thorough, levels; quick without --attack.", show_default=False),
]
_CASCADE = "Try an attack only on the rows those before it left standing; standard and thorough do unless told."
Cascade = Annotated[bool | None, typer.Option("--cascade/--no-cascade", help=_CASCADE, show_default=False)]
SkipProved = Annotated[
    bool, typer.Option("--skip-proved", help="Do not attack rows that sound bounds prove robust, where the model has such bounds.")
]
Precision = Annotated[str, typer.Option(help="exact, or fast: gradients in bfloat16, which can miss a break but never claim one.")]
Corruptions = Annotated[
    list[str] | None,
    typer.Option(help="A common corruption to measure as well, such as gaussian_noise, or all; repeatable.", show_default=False),
]
Knowledge = Annotated[
    list[str] | None, typer.Option(help="What the attacker may know: white, gray, black; all unless given.", show_default=False)
]
_REPLAY = (
    "An evaluation of the same data whose broken rows are tried first, or none; repeatable. "
    "Unless given, those of the versions the model comes from."
)
Replay = Annotated[list[str] | None, typer.Option(help=_REPLAY, show_default=False)]


class Sides:
    """Model and data as the command line names them: each an id, or a file with what is declared about it.

    Other rows that the job needs, by their field of it, are declared as the data are. `bounds_by` says how bounds are declared, where
    that is not the command line.
    """

    def __init__(
        self,
        model: str,
        data: str,
        model_spec: "ModelSpec | None",
        data_spec: "DataSpec | None",
        bounds_by: str | None = None,
        **others: str | None,
    ) -> None:
        from sparring.errors import UsageProblem
        from sparring.parsing import reference
        from sparring.peek import check_bounds

        self.model, self.data = model, data
        self.model_spec, self.data_spec = model_spec, data_spec
        self.model_ref, self.data_ref = reference(model, "mdl"), reference(data, "dat")
        self.others = {name: (given, reference(given, "dat")) for name, given in others.items() if given}
        for ref, declared, flags in (
            (self.model_ref, model_spec, "--arch --mean --std --layout --classes"),
            (self.data_ref, data_spec, "--bounds --scale --data-layout"),
        ):
            if ref and declared:
                said = ", ".join(declared.model_fields_set)
                raise UsageProblem(f"{ref} is uploaded already: its {said} cannot be declared now", f"Leave out {flags}, or give the file")
        if not self.data_ref:
            check_bounds(Path(data), data_spec, bounds_by)
        for given, ref in self.others.values():
            if not ref:
                check_bounds(Path(given), data_spec)

    def upload(self, client: "Client") -> dict[str, str]:
        """Upload what is a file; the references by their field of the job. UsageProblem for weights without an architecture."""
        model = self.model_ref or self.uploaded(client, self.model)
        found = {"model": model, "data": self.data_ref or client.datasets.upload(self.data, spec=self.data_spec).id}
        for name, (given, ref) in self.others.items():
            found[name] = ref or client.datasets.upload(given, spec=self.data_spec).id
        return found

    def uploaded(self, client: "Client", file: str) -> str:
        """Upload a model file, declared as the model is; its id. UsageProblem for weights without an architecture."""
        from sparring.errors import UsageProblem
        from sparring.peek import lacks_architecture

        info = client.models.upload(file, spec=self.model_spec)
        wrong, hint = lacks_architecture(info)
        if wrong:
            raise UsageProblem(wrong, hint)
        return info.id


def run(sides: Sides, make: "Callable[..., Evaluate | Craft | Certify]", wanted: "Sequence[Output]", device: str, as_json: bool) -> None:
    """Upload what is a file, submit the job, follow it to its end and show its report."""
    from sparring import local, outputs, show
    from sparring.progress import cancelled_if_interrupted, follow

    with local.service(device) as client:
        job = client.jobs.submit(make(**sides.upload(client)))
        with cancelled_if_interrupted(client, job.id):
            ended = follow(client, job.id)
        report = client.jobs.report(job.id)
        outputs.write(client, ended, wanted)
        if as_json:
            typer.echo(report.model_dump_json(indent=2))
        else:
            show.report(report)
            show.tell(f"\nreport: sparring report open {job.id}")


def job_maker(kind: Any, others: Sequence[str] = (), **given: Any) -> "Callable[..., Any]":
    """Makes the job once the uploads are known, `others` beside model and data; whatever else is wrong with it is raised now.

    What it is then told takes the place of what is given.
    """
    from sparring.parsing import made

    def make(**uploads: Any) -> Any:
        return made(kind, "", **{name: value for name, value in given.items() if value is not None} | uploads)

    make(**dict.fromkeys(("model", "data", *others), "0" * 64))
    return make


def evaluate(
    model: Model,
    data: Data,
    norm: Norm = "linf",
    eps: Eps = None,
    threat: Threats = None,
    attack: Attacks = None,
    suite: Suite = None,
    cascade: Cascade = None,
    skip_proved: SkipProved = False,
    precision: Precision = "exact",
    targeted: Targeted = False,
    corruption: Corruptions = None,
    knowledge: Knowledge = None,
    replay: Replay = None,
    training: o.Training = None,
    rows: o.Rows = None,
    seed: o.Seed = 0,
    asked: o.Asked = None,
    sent: o.Sent = None,
    device: o.Device = "auto",
    timeout: o.Timeout = None,
    output: o.Output = None,
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
    """How robust is this model on this data?

    Runs at SPARRING_URL, else on the stack of this machine, else on one started for the run.
    Ends with 0 when there is a report, 2 when none could be made, 4 on bad usage.
    """
    from sparring import parsing
    from sparring.contract.jobs import Evaluate
    from sparring.contract.specs import DataSpec, ModelSpec
    from sparring.outputs import outputs

    wanted = outputs(output or ())
    make = job_maker(
        Evaluate,
        threats=parsing.threats(norm, eps or (), threat or (), targeted),
        attacks=tuple(map(parsing.attack, attack or ())),
        suite=suite,
        cascade=cascade,
        skip_proved=skip_proved,
        precision=precision,
        corruptions=parsing.corruptions(corruption or ()),
        knowledge=knowledge or None,
        replay=() if replay == ["none"] else replay,
        rows=rows,
        seed=seed,
        budget=parsing.budget(asked, sent),
        device=device,
        timeout=timeout,
    )
    model_spec = parsing.spec(ModelSpec, arch=arch, mean=mean, std=std, layout=layout, classes=classes)
    data_spec = parsing.spec(DataSpec, bounds=bounds, scale=scale, layout=data_layout)
    run(Sides(model, data, model_spec, data_spec, training=training), make, wanted, device, as_json)


def craft(
    model: Model,
    data: Data,
    attack: Annotated[str, typer.Option(help="The attack, pgd:steps=20,alpha=2/255.", show_default=False)],
    output: Annotated[list[Path], typer.Option("-o", "--output", help="Where the crafted dataset goes (.npz), and reports if wanted.")],
    norm: Norm = "linf",
    eps: Eps = None,
    threat: Threats = None,
    targeted: Targeted = False,
    training: o.Training = None,
    rows: o.Rows = None,
    seed: o.Seed = 0,
    asked: o.Asked = None,
    sent: o.Sent = None,
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
    """Adversarial examples as a dataset: one attack, its full course on every row."""
    from sparring import parsing
    from sparring.contract.jobs import Craft
    from sparring.contract.specs import DataSpec, ModelSpec
    from sparring.errors import UsageProblem
    from sparring.outputs import outputs

    wanted = outputs(output, crafting=True)
    threats = parsing.threats(norm, eps or (), threat or (), targeted)
    if len(threats) != 1:
        raise UsageProblem(f"{len(threats)} threats are given, but examples are crafted within one", "Run the command once for each")
    make = job_maker(
        Craft,
        threat=threats[0],
        attack=parsing.attack(attack),
        rows=rows,
        seed=seed,
        budget=parsing.budget(asked, sent),
        device=device,
        timeout=timeout,
    )
    model_spec = parsing.spec(ModelSpec, arch=arch, mean=mean, std=std, layout=layout, classes=classes)
    data_spec = parsing.spec(DataSpec, bounds=bounds, scale=scale, layout=data_layout)
    run(Sides(model, data, model_spec, data_spec, training=training), make, wanted, device, as_json)
