"""Pages of docs/ whose second part is the contract's: `python -P -m sparring.guide docs/attacks.md docs/defenses.md` writes it anew."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from sparring.contract.attacks import CASCADES, PURPOSES, SUITES, AnyAttack, describe
from sparring.contract.base import Frozen
from sparring.contract.defenses import Training
from sparring.contract.defenses import describe as describe_defense
from sparring.parsing import ALIASES, DEFENSE_ALIASES, DEFENSE_KINDS, KINDS
from sparring.reports import text

MARK = "<!-- What follows is written by `make docs` from the contract. -->"


def refreshed(page: str, parts: Callable[[], Iterator[str]] | None = None) -> str:
    """The page with everything after its mark written anew: unless given other parts, those of the attacks.

    Raises:
        ValueError: there is no mark.
    """
    head, mark, _ = page.partition(MARK)
    if not mark:
        raise ValueError(f"the page holds no line {MARK}")
    return "\n\n".join([head + mark, *(parts or _parts)()]) + "\n"


def _cell(value: str) -> str:
    return value.replace("|", "\\|")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _parts() -> Iterator[str]:
    yield "## Suites"
    for name, (version, members) in SUITES.items():
        cascade = "It is run as a cascade." if name in CASCADES else "Every attack is tried on every row."
        rows = [(f"`{text.attack_word(each)}`", each.title, ", ".join(each.norms)) for each in members]
        yield f"### Suite {name}"
        yield f"{PURPOSES[name]} {cascade} Version `{version}`."
        yield _table(("attack", "is", "norms"), rows)
    yield "## Losses"
    yield _table(("loss", "what is climbed"), [(f"`{name}`", meaning) for name, meaning in describe.LOSSES.items()])
    yield "## Short names"
    yield _table(("name", "means"), [(f"`{alias}`", f"`{means}`") for alias, means in ALIASES.items()])
    yield "## Every attack"
    head = ("name", "title", "access", "knowledge", "norms")
    yield _table(head, ((f"[`{kind}`](#{kind})", a.title, a.access, a.knowledge, ", ".join(a.norms)) for kind, a in KINDS.items()))
    for attack in KINDS.values():
        yield from _attack(attack)


def _attack(attack: type[AnyAttack]) -> Iterator[str]:
    yield f"### {describe.kind(attack)}"
    yield from describe.description(attack)
    facts = (f"{attack.access} access", f"{attack.knowledge}-box", ", ".join(attack.norms), attack.paper)
    yield " · ".join((f"**{attack.title}**", *facts))
    yield from describe.notes(attack)
    yield _table(("setting", "default", "may be", "meaning"), [(f"`{s.name}`", *s[1:]) for s in describe.settings(attack)])


def defenses() -> Iterator[str]:
    """The parts of the page of defenses."""
    yield "## Families"
    yield _table(("family", "what it is for"), describe_defense.FAMILIES.items())
    yield "## How every defense is trained"
    yield "Settings of a training, whatever the defense: `--epochs`, and the others as `--training batch=128,schedule=cyclic`."
    yield _settings(Training)
    yield "## Short names"
    yield _table(("name", "means"), [(f"`{alias}`", f"`{means}`") for alias, means in DEFENSE_ALIASES.items()])
    yield "## Every defense"
    rows = ((f"[`{kind}`](#{kind})", d.title, d.family, str(d().gradients)) for kind, d in DEFENSE_KINDS.items())
    yield _table(("name", "title", "family", "gradients"), rows)
    for kind, defense in DEFENSE_KINDS.items():
        yield f"### {kind}"
        yield from describe_defense.description(defense)
        yield " · ".join((f"**{defense.title}**", defense.family, defense.paper))
        yield " ".join(describe_defense.notes(defense))
        if describe_defense.settings(defense):
            yield _settings(defense)


def _settings(model: type[Frozen]) -> str:
    told = describe_defense.settings(model)
    return _table(("setting", "default", "may be", "meaning"), [(f"`{s.name}`", *s[1:]) for s in told])


PAGES: dict[str, Callable[[], Iterator[str]]] = {"attacks.md": _parts, "defenses.md": defenses}
"""What follows the mark, by the name of the page."""

if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        page.write_text(refreshed(page.read_text(encoding="utf-8"), PAGES[page.name]), encoding="utf-8")
