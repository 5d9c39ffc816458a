"""What the pages tell a reader to type exists."""

import re
import subprocess
from pathlib import Path

import pytest
import typer

from sparring.commands.root import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("benchmarks/*.md")])
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def typed(page: Path) -> list[str]:
    """The lines of a page's blocks of code, and its pieces of code within the text."""
    text = page.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def resolves(words: list[str]) -> bool:
    """Whether these words after `sparring` lead to a command; what follows a command is its arguments."""
    command = typer.main.get_command(app)
    for word in words:
        below = getattr(command, "commands", None)
        if below is None or word.startswith("-"):
            return True
        if word not in below:
            return "run" in below and "." in word  # of `sparring gate` a policy is an argument
        command = below[word]
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_exists(page: Path):
    lines = typed(page)
    made = {
        word
        for line in lines
        if line.startswith("make ")
        for word in re.findall(r"(?<=\s)([a-z][a-z-]*)(?=\s|$)", line.partition("#")[0].partition(" ARGS=")[0])
    }
    assert made <= TARGETS
    called = [re.match(r"(?:\.venv/bin/)?sparring((?: [\w.-]+)*)", line) for line in lines]
    assert [found[0] for found in called if found and not resolves(found[1].split())] == []


def test_the_readme_begins_with_two_commands():
    assert {"make demo", "make test"} <= {line.partition("#")[0].strip() for line in typed(ROOT / "README.md")}


def test_a_wrong_command_would_be_found():
    assert resolves(["jobs", "list"])
    assert resolves(["gate", "gate.yaml"])
    assert resolves(["gate", "baseline", "accept", "gate.yaml"])
    assert not resolves(["gate", "valdate", "gate.yaml"])
    assert not resolves(["jobs", "lits"])
    assert not resolves(["dmeo"])


def test_every_target_says_what_it_is_for():
    told = subprocess.run(["make", "-s", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert TARGETS - {"links", "help"} <= {line.split()[1] for line in told.splitlines()} <= TARGETS


def test_the_pipeline_is_a_script_that_can_be_run():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111 == 0o111
    subprocess.run(["bash", "-n", script], check=True)
