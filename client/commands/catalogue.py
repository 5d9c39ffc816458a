"""`sparring attacks`, `sparring defenses` and `sparring suites`: what can be asked for, from the contract, without a service."""

from typing import Annotated

import typer

from sparring.commands import options as o

attacks = typer.Typer(no_args_is_help=True, help="Attacks: list, show.")
defenses = typer.Typer(no_args_is_help=True, help="Defenses: list, show.")
suites = typer.Typer(no_args_is_help=True, help="Suites of attacks: list, show.")


@attacks.command("list")
def list_attacks(as_json: o.Json = False) -> None:
    """Every attack, and short names for some."""
    from sparring import show
    from sparring.contract.catalogue import ATTACK_INFOS
    from sparring.parsing import ALIASES, KINDS

    if as_json:
        show.as_json(ATTACK_INFOS.values())
        return
    rows = [(kind, a.title, a.access, a.knowledge, ", ".join(a.norms), a.paper) for kind, a in KINDS.items()]
    show.table("", ("name", "title", "access", "knowledge", "norms", "paper"), rows)
    show.table("\nshort names", ("name", "means"), ALIASES.items())


@attacks.command("show")
def show_attack(name: Annotated[str, typer.Argument(help="Such as pgd, or a short name such as apgd-t.", show_default=False)]) -> None:
    """One attack and its settings."""
    from sparring import show
    from sparring.contract.attacks import describe
    from sparring.parsing import ALIASES, KINDS, unknown_attack

    meant = ALIASES.get(name, name)
    kind = meant.partition(":")[0]
    if kind not in KINDS:
        raise unknown_attack(name, "")
    attack = KINDS[kind]
    for paragraph in (*describe.description(attack), *describe.notes(attack)):
        show.tell(paragraph)
    short = ", ".join(alias for alias, means in ALIASES.items() if means.partition(":")[0] == kind)
    facts = [("access", attack.access), ("knowledge", attack.knowledge), ("norms", ", ".join(attack.norms)), ("paper", attack.paper)]
    show.facts([("name", kind), ("title", attack.title), *facts, ("short names", short)])
    show.table("\nsettings", ("name", "default", "may be", "meaning"), describe.settings(attack))
    if "loss" in attack.model_fields:
        show.table("\nlosses", ("loss", "what is climbed"), describe.LOSSES.items())
    show.tell(f"\nfor example\nsparring evaluate model.pt2 data.npz --norm {attack.norms[0]} --eps 8/255 --attack {_example(meant)}")


def _example(meant: str) -> str:
    """An attack with one or two settings written out, as `--attack` takes it."""
    from sparring.contract.attacks import describe
    from sparring.parsing import KINDS

    if ":" in meant:
        return meant
    settings = [s for s in describe.settings(KINDS[meant]) if s.default not in ("not set", "none")]
    return f"{meant}:{','.join(f'{s.name}={s.default}' for s in settings[:2])}"


@defenses.command("list")
def list_defenses(as_json: o.Json = False) -> None:
    """Every defense, and short names for some."""
    from sparring import show
    from sparring.contract.catalogue import DEFENSE_INFOS
    from sparring.parsing import DEFENSE_ALIASES

    infos = DEFENSE_INFOS.values()
    if as_json:
        show.as_json(infos)
        return
    rows = [(one.kind, one.title, one.family, one.gradients, one.summary) for one in infos]
    show.table("", ("name", "title", "family", "gradients", "what it does"), rows, ("gradients",))
    show.tell("gradients: times each row goes forward and back through the model in one epoch; plain training is 1")
    show.table("\nshort names", ("name", "means"), DEFENSE_ALIASES.items())


@defenses.command("show")
def show_defense(name: Annotated[str, typer.Argument(help="Such as trades, or a short name such as pgd-at.", show_default=False)]) -> None:
    """One defense and its settings."""
    from sparring import show
    from sparring.contract.defenses import EnsembleTraining, describe
    from sparring.parsing import DEFENSE_ALIASES, DEFENSE_KINDS, unknown_defense

    kind = DEFENSE_ALIASES.get(name, name).partition(":")[0]
    if kind not in DEFENSE_KINDS:
        raise unknown_defense(name, "")
    defense = DEFENSE_KINDS[kind]
    for paragraph in (*describe.description(defense), *describe.notes(defense)):
        show.tell(paragraph)
    short = ", ".join(alias for alias, means in DEFENSE_ALIASES.items() if means.partition(":")[0] == kind)
    family = f"{defense.family}: {describe.FAMILIES[defense.family]}"
    show.facts([("name", kind), ("title", defense.title), ("family", family), ("paper", defense.paper), ("short names", short)])
    if settings := describe.settings(defense):
        show.table("\nsettings", ("name", "default", "may be", "meaning"), settings)
    beside = " --surrogate other.pt2" if defense is EnsembleTraining else ""
    show.tell(f"\nfor example\nsparring retrain model.pt2 data.npz --defense {name}{beside} -o new.pt2")


@suites.command("list")
def list_suites(as_json: o.Json = False) -> None:
    """Every suite: how much it runs, and what it is for."""
    from sparring import show
    from sparring.contract.catalogue import SUITE_INFOS

    infos = SUITE_INFOS.values()
    if as_json:
        show.as_json(infos)
        return
    rows = [(one.name, one.version, len(one.attacks), "yes" if one.cascade else "no", one.purpose) for one in infos]
    show.table("", ("name", "version", "attacks", "cascade", "what it is for"), rows, ("attacks",))


@suites.command("show")
def show_suite(name: Annotated[str, typer.Argument(help="Such as standard.", show_default=False)]) -> None:
    """One suite and its attacks, in the order in which they are run."""
    from sparring import show
    from sparring.contract.attacks import CASCADES, PURPOSES, SUITES, SuiteName
    from sparring.parsing import checked
    from sparring.reports import text

    suite: SuiteName = checked(SuiteName, name, "the suite")
    version, members = SUITES[suite]
    show.tell(PURPOSES[suite])
    cascade = "yes, unless --no-cascade: an attack sees only the rows that those before it left standing" if suite in CASCADES else "no"
    show.facts([("name", suite), ("version", version), ("cascade", cascade)])
    rows = [(each.title, ", ".join(each.norms), each.access, text.attack_word(each)) for each in members]
    show.table("\nattacks", ("title", "norms", "access", "as --attack takes it"), rows)
