import xml.etree.ElementTree as ET

import pytest

from sparring.contract.report import Report
from sparring.reports.figures import distances_svg
from sparring.reports.html import html
from sparring.reports.moved import ALONE, FIRST, Cell, class_name, shifts, spreads
from tests.reports import factory
from tests.reports.test_html import Page, words


def test_a_grid_has_what_was_and_what_became_of_every_class():
    (shift, *_) = shifts(factory.moved())
    assert shift.columns == (-1, *range(10))
    lines = dict(shift.grid)
    assert lines[4][shift.columns.index(9)] == Cell(2, 31, 0.31)
    result = factory.moved().threats[0]
    assert lines[4][shift.columns.index(4)] == Cell(result.classes[4].clean.count, result.classes[4].robust.count, 0.0)
    assert lines[0][shift.columns.index(1)] == Cell(0, 0, 0.0)
    assert [(move.label, move.prediction, share.count, share.total) for move, share in shift.top[:2]] == [(4, 9, 31, 100), (3, 5, 12, 100)]


def test_what_is_not_listed_is_counted():
    sample = factory.moved()
    (shift, *_) = shifts(sample)
    listed = sum(move.worst for move, _ in shift.top)
    worst = sample.threats[0].worst
    assert len(shift.top) <= FIRST
    assert shift.others == worst.total - worst.count - listed > 0


def test_many_classes_are_listed_and_have_no_grid():
    sample = factory.moved(classes=1000, pairs=400)
    (shift, *_) = shifts(sample)
    assert len(shift.top) == ALONE
    assert shift.grid == shift.columns == ()
    page = html(sample)
    assert 'class="grid"' not in page
    assert page.count("→") == ALONE


def test_the_page_shows_the_moves_with_their_numbers():
    page = Page(html(factory.moved()))
    said = words(page)
    assert page.open == []
    assert "4 → 9 2 31 31.0 %" in said
    assert "2 → no class 0 1" in said
    assert len([t for t in page.all("table") if t.get("class") == "grid"]) == 1


def test_reports_of_earlier_versions_have_neither_section_and_can_be_read():
    old = factory.report().model_dump(mode="json")
    for result in old["threats"]:
        del result["moves"]
        for each in result["each"]:
            del each["distances"]
    page = html(Report.model_validate(old))
    assert shifts(Report.model_validate(old)) == spreads(Report.model_validate(old)) == ()
    assert 'id="confusion"' not in page
    assert 'id="distances"' not in page


def test_distances_have_a_bar_for_each_part_and_a_table_behind():
    sample = factory.moved()
    (spread,) = spreads(sample)
    assert [each.name for each in spread.each] == ["noise", "pgd"], "the others broke no row first"
    assert spread.ends == pytest.approx([0, 1 / 255, 2 / 255, 3 / 255, 4 / 255])
    assert spread.lines == (("0.003922", "0.007843", "5", "0"), ("0.01176", "0.01569", "1", "90"))
    page = Page(html(sample))
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert "0.01176 0.01569 1 90" in words(page)


def test_bars_stand_on_each_other_and_are_drawn_the_same_each_time():
    (spread,) = spreads(factory.moved())
    drawn = distances_svg(spread, "d")
    assert drawn == distances_svg(spread, "d")
    assert "#01020" not in drawn
    root = ET.fromstring(drawn)
    said = {"".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"noise", "pgd", "rows broken", "distance (linf), in units of the data"} <= said
    assert drawn.count("fill: var(--accent)") >= 2, "noise, in the drawing and in the legend"
    assert "fill: var(--ink)" in drawn


def test_no_class_has_a_name():
    assert (class_name(-1), class_name(0)) == ("no class", "0")
