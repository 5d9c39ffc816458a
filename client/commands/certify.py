"""`sparring certify`: how many rows provably hold, beside what attacks leave."""

from typing import Annotated

import typer

from sparring.commands import options as o
from sparring.commands.evaluate import Data, Eps, Model, Norm, Sides, Threats, job_maker, run

Method = Annotated[
    str, typer.Option(help="crown, interval; or smoothing:sigma=0.25,samples=10000,alpha=0.001, which is of the smoothed model.")
]
Attacks = Annotated[list[str] | None, typer.Option("--attack", help="An attack to run beside it; repeatable.", show_default=False)]
Suite = Annotated[str | None, typer.Option(help="The attacks to run beside it; standard unless given.", show_default=False)]


def certify(
    model: Model,
    data: Data,
    norm: Norm = "linf",
    eps: Eps = None,
    threat: Threats = None,
    method: Method = "crown",
    attack: Attacks = None,
    suite: Suite = None,
    rows: o.Rows = None,
    seed: o.Seed = 0,
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
    """How many rows provably hold? They are attacked as well: the truth lies between the two.

    A row that is both certified and broken fails the job. Ends with 0 when there is a report, 2 when none could be made, 4 on bad usage.
    """
    from sparring import parsing
    from sparring.contract.jobs import Certify
    from sparring.contract.specs import DataSpec, ModelSpec
    from sparring.outputs import outputs

    wanted = outputs(output or ())
    make = job_maker(
        Certify,
        threats=parsing.threats(norm, eps or (), threat or (), targeted=False),
        method=parsing.certificate(method),
        attacks=tuple(map(parsing.attack, attack or ())),
        suite=suite,
        rows=rows,
        seed=seed,
        device=device,
        timeout=timeout,
    )
    model_spec = parsing.spec(ModelSpec, arch=arch, mean=mean, std=std, layout=layout, classes=classes)
    data_spec = parsing.spec(DataSpec, bounds=bounds, scale=scale, layout=data_layout)
    run(Sides(model, data, model_spec, data_spec), make, wanted, device, as_json)
