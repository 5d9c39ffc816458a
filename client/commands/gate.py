"""`sparring gate`: may this model pass?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from sparring.commands import options as o

if TYPE_CHECKING:
    from sparring.contract.verdict import Verdict

RUN = "run"


class _PolicyFirst(TyperGroup):
    """A first argument that names no subcommand is the policy."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What is meant, written out."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [RUN, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_PolicyFirst,
    no_args_is_help=True,
    help="The gate of a CI: `sparring gate gate.yaml`, which is short for `sparring gate run gate.yaml`, or another command.",
    subcommand_metavar="POLICY | COMMAND",
)
baseline = typer.Typer(no_args_is_help=True, help="Baselines, which rules with a max_drop compare with: accept.")
app.add_typer(baseline, name="baseline")

Policy = Annotated[Path, typer.Argument(metavar="POLICY", help="The policy, such as gate.yaml.", show_default=False)]
Model = Annotated[str | None, typer.Option(help="Another model file in place of the policy's, declared as that is.", show_default=False)]
Job = Annotated[str | None, typer.Option(help="An evaluation that has been run already.", show_default=False)]


@app.command(RUN)
def run(
    policy: Annotated[Path | None, typer.Argument(metavar="POLICY", help="The policy, such as gate.yaml.", show_default=False)] = None,
    model: Model = None,
    rule: Annotated[list[str] | None, typer.Option(help="Apply this rule alone; repeatable.", show_default=False)] = None,
    job: Job = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o", "--output", help="The verdict: .json .xml (JUnit) .sarif .md .html, …badge.json; repeatable.", show_default=False
        ),
    ] = None,
    report: Annotated[
        list[Path] | None,
        typer.Option(help=f"The report behind it: {o.FORMS}; repeatable.", show_default=False),
    ] = None,
    as_json: o.Json = False,
    prove: Annotated[bool, typer.Option("--selftest", help="Prove on models that are known that the gate can fail.")] = False,
) -> None:
    """Run the evaluation a policy asks for, and judge it.

    Runs at SPARRING_URL, else on the stack of this machine, else on one started for the run. Ends with 0 when every rule holds,
    1 when one is violated, 2 when nothing could be evaluated, 3 when there was nothing to evaluate, 4 on bad usage or a faulty
    policy, 5 when a rule is inconclusive.
    """
    from sparring.errors import UsageProblem
    from sparring.gate import baselines, files, selftest
    from sparring.gate.policy import read
    from sparring.gate.run import Wanted, baseline_file, decide
    from sparring.outputs import outputs

    if prove:
        selftest.run()
        return
    if policy is None:
        raise UsageProblem("No policy is given", "sparring gate gate.yaml")
    written = read(policy)
    known = [each.id for each in written.policy.rules]
    if unknown := [name for name in rule or () if name not in known]:
        raise UsageProblem(f"--rule {unknown[0]}: the policy has no such rule", f"It has {', '.join(known)}")
    forms = files.forms(output or ())
    wanted = Wanted(written, model, frozenset(rule or ()), job, outputs(report or (), said="--report"))
    verdict = decide(wanted, baselines.load(baseline_file(written)))
    files.write(verdict, forms)
    typer.echo(verdict.model_dump_json(indent=2)) if as_json else _show(verdict)
    _end(verdict)


def _show(verdict: "Verdict") -> None:
    """The verdict as a table: it first, the report's place last."""
    from sparring import show
    from sparring.reports import gate_text

    show.tell(gate_text.headline(verdict))
    show.table("", gate_text.COLUMNS, gate_text.rows(verdict))
    for warning in gate_text.warnings(verdict):
        show.tell(f"warning: {warning}")
    show.tell(gate_text.place(verdict))


def _end(verdict: "Verdict") -> None:
    """End with the exit code of a verdict."""
    from sparring.errors import SparringError

    if verdict.exit_code == SparringError.exit_code:
        raise SparringError(verdict.reason, verdict.hint)
    raise typer.Exit(verdict.exit_code)


@app.command()
def validate(policy: Policy) -> None:
    """Check a policy without running anything; every fault is told with its line."""
    from sparring import show
    from sparring.gate.policy import read

    found = read(policy).policy
    counted = ((len(getattr(found, name)), name) for name in ("rules", "threats", "waivers"))
    show.tell(f"{policy} is a sound policy: {', '.join(f'{count} {name[: -1 if count == 1 else None]}' for count, name in counted)}")


@app.command()
def explain(policy: Policy) -> None:
    """Say what a policy runs, what each rule asks for, and what its waivers forgive, without running anything."""
    from sparring.gate import baselines
    from sparring.gate.explain import explain
    from sparring.gate.policy import read
    from sparring.gate.run import Wanted, baseline_file, baseline_name

    found = read(policy)
    explain(found, baselines.load(baseline_file(found)), baseline_name(Wanted(found)))


@baseline.command()
def accept(
    policy: Policy,
    model: Model = None,
    job: Job = None,
    branch: Annotated[str | None, typer.Option(help="The branch it is of; the policy's unless given.", show_default=False)] = None,
) -> None:
    """Run the evaluation a policy asks for, and keep what became of each row as what later runs are compared with."""
    from sparring import show
    from sparring.contract.gate import BaselinePlace
    from sparring.gate import run
    from sparring.gate.policy import read
    from sparring.parsing import made

    found = read(policy)
    file = run.baseline_file(found)
    of = made(BaselinePlace, "", branch=branch).branch if branch else None
    fresh = run.accept(run.Wanted(found, model, job=job), file, of)
    name, branch = fresh[0].key.model, fresh[0].key.branch
    show.tell(f"{file}: {len(fresh)} baselines accepted of model {name!r}, {fresh[0].rows} rows, branch {branch!r}. Commit the file")
