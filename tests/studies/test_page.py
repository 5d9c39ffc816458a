"""Tables go where a page has a place for them, and leave the rest of it alone; those of docs/studies.md are the studies'."""

from pathlib import Path

import pytest
from digits import FEW, HOLD, TRANSFER
from page import Measured, between, measurements, table, write
from toys import ROWS

from sparring.parsing import defense

PAGE = "# Before\n\n<!-- one -->\nold\n<!-- end of one -->\nBetween.\n<!-- two -->\n<!-- end of two -->\nAfter.\n"
STUDIES = Path(__file__).parents[2] / "docs" / "studies.md"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page with two places."""
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return path


def test_a_table_takes_the_place_of_the_one_before_and_of_nothing_else(page: Path) -> None:
    write(page, "one", table(("a", "b"), [("1", "2")]))
    assert between(page, "one") == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    write(page, "two", "new\n")
    write(page, "one", "old\n")
    assert page.read_text() == PAGE.replace("<!-- two -->\n", "<!-- two -->\nnew\n")


@pytest.mark.parametrize("fault", [PAGE.replace("<!-- one -->\n", ""), PAGE.replace("<!-- end of one -->\n", ""), PAGE + PAGE])
def test_a_page_without_exactly_one_place_is_left_alone(page: Path, fault: str) -> None:
    page.write_text(fault)
    with pytest.raises(ValueError, match="needs one line <!-- one -->"):
        write(page, "one", "new\n")
    assert page.read_text() == fault


def test_each_figure_stands_with_its_spread_beside_its_reference() -> None:
    rows = [Measured("vat", ([1.0, 3.0], [50.0, 50.0]), ("2.0 ± 0.1", "49.0")), Measured("plain", ([7.25], [1.0]))]
    lines = measurements(("clean", "robust"), rows).splitlines()
    assert lines[0] == "|  | clean | reference | robust | reference |"
    assert lines[2:] == ["| `vat` | 2.0 ± 1.4 | 2.0 ± 0.1 | 50.0 ± 0.0 | 49.0 |", "| `plain` | 7.2 |  | 1.0 |  |"]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("circles", ROWS["circles"][1]),
        ("moons", ROWS["moons"][1]),
        ("digits", HOLD),
        ("transfer", dict.fromkeys(TRANSFER, ())),
        ("labels", FEW),
    ],
)
def test_what_stands_on_the_page_is_of_the_study(name: str, rows: dict[str, str | tuple[str, ...]]) -> None:
    """Every row names a defense of the study, and has the references that the study knows; plain training is among them."""
    _, _, *lines = between(STUDIES, name).splitlines()
    found = {cells[1].strip().strip("`"): [cell.strip() for cell in cells[2:-1]] for cells in (line.split("|") for line in lines)}
    assert next(iter(rows)) in found, "run `make studies`"
    for text, figures in found.items():
        told = rows[text]
        assert all(reference in figures for reference in ((told,) if isinstance(told, str) else told) if reference)
    assert all(defense(text) for text in rows)
