"""`sparring attacks` and `sparring suites`: what can be asked for, from the contract, without a service."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sparring.contract.attacks import AttackBase

attacks = typer.Typer(no_args_is_help=True, help="Attacks: list, show.")
suites = typer.Typer(no_args_is_help=True, help="Suites of attacks: list.")


def _summary(attack: "type[AttackBase]") -> str:
    return (attack.__doc__ or "").partition("\n")[0]


@attacks.command("list")
def list_attacks() -> None:
    """Every attack."""
    from sparring import show
    from sparring.parsing import KINDS

    rows = [(kind, a.title, a.knowledge, a.access, ", ".join(a.norms), _summary(a)) for kind, a in KINDS.items()]
    show.table("", ("kind", "title", "knowledge", "needs", "norms", "what it does"), rows)


@attacks.command("show")
def show_attack(kind: Annotated[str, typer.Argument(help="Such as pgd.", show_default=False)]) -> None:
    """One attack and its settings."""
    from sparring import show
    from sparring.errors import UsageProblem
    from sparring.parsing import KINDS

    if kind not in KINDS:
        raise UsageProblem(f"There is no attack {kind!r}", f"Known are {', '.join(KINDS)}")
    attack = KINDS[kind]
    needs = f"{attack.knowledge}-box, {attack.access} access"
    show.tell(_summary(attack))
    show.facts([("kind", kind), ("paper", attack.paper), ("needs", needs), ("norms", ", ".join(attack.norms))])
    settings = attack.model_json_schema()["properties"]
    rows = [
        (name, "–" if field.default is None else field.default, " ".join(settings[name].get("description", "").split()))
        for name, field in attack.model_fields.items()
        if name != "kind"
    ]
    show.table("\nsettings", ("name", "default", "what it is"), rows)


@suites.command("list")
def list_suites() -> None:
    """Every suite and its attacks, from the cheapest to the dearest."""
    from sparring import show
    from sparring.contract.attacks import SUITES

    rows = [(name, version, ", ".join(attack.title for attack in members)) for name, (version, members) in SUITES.items()]
    show.table("", ("name", "version", "attacks"), rows)
