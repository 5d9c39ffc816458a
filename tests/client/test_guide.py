from pathlib import Path

import pytest

from sparring.contract.attacks import ATTACKS, SUITES, describe
from sparring.contract.defenses import DEFENSES, Training
from sparring.contract.defenses import describe as defenses
from sparring.guide import MARK, PAGES, refreshed
from sparring.reports import text

PAGE = Path(__file__).parents[2] / "docs" / "attacks.md"


def test_the_page_of_attacks_is_that_of_the_contract():
    written = PAGE.read_text(encoding="utf-8")
    assert written == refreshed(written), "run `make docs`"


def test_what_stands_before_the_mark_stays_and_what_follows_does_not():
    made = refreshed(f"By hand.\n\n{MARK}\n\nstale")
    assert made.startswith(f"By hand.\n\n{MARK}\n\n## Suites\n")
    assert "stale" not in made
    assert refreshed(made) == made
    with pytest.raises(ValueError, match="the page holds no line"):
        refreshed("By hand.")


def test_every_attack_and_suite_is_there_with_all_that_is_known():
    made = refreshed(MARK)
    for attack in ATTACKS:
        section = made.partition(f"\n### {describe.kind(attack)}\n")[2].partition("\n### ")[0]
        for said in (describe.summary(attack), attack.paper, f"{attack.access} access", ", ".join(attack.norms)):
            assert said in section
        for setting in describe.settings(attack):
            assert f"| `{setting.name}` | {setting.default} | {setting.bounds} | {setting.meaning} |" in section
    for name, (version, members) in SUITES.items():
        section = made.partition(f"\n### Suite {name}\n")[2].partition("\n### ")[0]
        assert version in section
        assert [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")][: len(members)] == [
            text.attack_word(each) for each in members
        ]


DEFENSES_PAGE = PAGE.with_name("defenses.md")


def test_the_page_of_defenses_is_that_of_the_contract():
    written = DEFENSES_PAGE.read_text(encoding="utf-8")
    assert written == refreshed(written, PAGES["defenses.md"]), "run `make docs`"
    for defense in DEFENSES:
        section = written.partition(f"\n### {defenses.kind(defense)}\n")[2].partition("\n### ")[0]
        for said in (defenses.description(defense)[0], defense.paper, *defenses.notes(defense)):
            assert said in section
        for setting in defenses.settings(defense):
            assert f"| `{setting.name}` | {setting.default} | {setting.bounds} | {setting.meaning} |" in section
    for setting in defenses.settings(Training):
        assert f"| `{setting.name}` |" in written
