"""docs/attacks.md: `python -P -m sparring.guide docs/attacks.md` writes what follows its mark anew, from the contract."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sparring.contract.attacks import CASCADES, PURPOSES, SUITES, AnyAttack, describe
from sparring.parsing import ALIASES, KINDS
from sparring.reports import text

MARK = "<!-- What follows is written by `make docs` from the contract. -->"


def refreshed(page: str) -> str:
    """The page with everything after its mark written anew.

    Raises:
        ValueError: there is no mark.
    """
    head, mark, _ = page.partition(MARK)
    if not mark:
        raise ValueError(f"the page holds no line {MARK}")
    return "\n\n".join([head + mark, *_parts()]) + "\n"


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


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(refreshed(page.read_text(encoding="utf-8")), encoding="utf-8")
