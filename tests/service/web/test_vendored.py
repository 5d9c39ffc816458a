"""The files of others that come with the pages are those that vendored.json names, with their licences, and are installed."""

import json
import tomllib
from hashlib import sha256
from pathlib import Path

import pytest

from sparring.service.web.view import HERE, STATIC

OURS = {"pages.css", "pages.js", "icon.svg", "vendored.json", "LICENSES.txt"}
VENDORED = json.loads((STATIC / "vendored.json").read_text())


@pytest.mark.parametrize("entry", VENDORED, ids=lambda entry: entry["file"])
def test_a_file_is_what_was_taken(entry: dict[str, str]) -> None:
    assert sha256((STATIC / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
    assert entry["licence"] in ("MIT", "0BSD")
    heading = f"== {entry['package'].lstrip('@').replace('/', '-')}-{entry['version']}\n"
    assert heading in (STATIC / "LICENSES.txt").read_text()


def test_no_file_is_unaccounted_for() -> None:
    assert {path.name for path in STATIC.iterdir()} == OURS | {entry["file"] for entry in VENDORED}


def test_templates_and_files_are_installed() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["sparring.service.web"]
    covered = {path for pattern in patterns for path in HERE.glob(pattern)}
    assert {path for path in HERE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")} == covered
