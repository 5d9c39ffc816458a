"""Rows that flipped, and the page that shows them."""

import io
from base64 import b64decode

import pytest

from sparring.reports.compare import Told, compared
from sparring.reports.compare_html import page
from sparring.reports.flipped import BYTES, LISTED, MOST, flipped, remark
from sparring.reports.pictures import Album, Broken
from sparring.reports.png import SIGNATURE, png
from sparring.reports.rows import outcomes, read_csv
from tests.client.gate import sample
from tests.reports.test_html import Page, words

EVIL = "<script>alert(1)</script>\u202e\0\"'"


def dot(*values: int) -> bytes:
    return png(bytes(values), len(values), 1, 1)


def album(rows: range, shade: int, heavy: bytes = b"") -> Album:
    """Pictures of these rows under the first threat, told apart by their shade; `heavy` follows each."""
    file = io.BytesIO()
    with Album(file, new=True) as made:
        for row in rows:
            made.keep_original(row, dot(row) + heavy)
            made.keep_broken(0, row, Broken(dot(row, shade), dot(row, shade, shade)))
    return Album(file)


def told(right=190, stood=150, pictures: Album | None = None, change=lambda report: report, by="pgd") -> Told:
    found = sample.evidence(right, stood)
    report = change(found.report)
    lines = tuple(
        line._replace(broken_by="clean" if line.clean_prediction != line.label else by if line.broken else "", distance=0.01)
        for line in read_csv(io.StringIO(sample.rows_csv(found).decode(), newline=""))
    )
    return Told(report, outcomes(lines, report), lines, pictures)


def test_a_lost_row_is_shown_as_it_breaks_the_second_model_and_a_won_one_as_it_broke_the_first():
    before, after = told(stood=150, pictures=album(range(200), 1)), told(stood=145, pictures=album(range(200), 2))
    (lost,) = flipped(before, after, compared(before, after))
    assert (lost.what, lost.word, lost.rows) == ("linf 4/255", "lost", (145, 146, 147, 148, 149))
    first = lost.shown[0]
    assert (first.row, first.label) == (145, 3)
    assert (first.before, first.after) == ("3, stands", "3 → 4 by pgd, distance 0.01")
    assert (first.original, first.perturbation, first.adversarial) == (dot(145), dot(145, 2), dot(145, 2, 2))
    (won,) = flipped(after, before, compared(after, before))
    assert (won.word, won.shown[0].before, won.shown[0].after) == ("won", "3 → 4 by pgd, distance 0.01", "3, stands")
    assert won.shown[0].adversarial == dot(145, 2, 2)


def test_a_row_that_is_wrong_as_it_is_has_no_perturbation():
    before, after = told(right=190, stood=150), told(right=149, stood=149, pictures=album(range(200), 2))
    clean, near = flipped(before, after, compared(before, after))
    assert (clean.what, len(clean.rows), len(clean.shown)) == ("clean", 41, MOST)
    assert (clean.shown[0].before, clean.shown[0].after) == ("3", "4")
    assert (near.rows, near.shown[0].after) == ((149,), "4, wrong as it is")
    assert [one.adversarial for one in (*clean.shown, *near.shown)] == [None] * (MOST + 1)


def test_there_are_at_most_so_many_and_so_large_ones():
    before = told(stood=150, pictures=album(range(200), 1))
    after = told(stood=130, pictures=album(range(200), 2))
    (lost,) = flipped(before, after, compared(before, after))
    assert [one.row for one in lost.shown] == list(range(130, 130 + MOST))
    heavy = told(stood=130, pictures=album(range(130, 136), 2, bytes(BYTES // 5)))
    assert len(flipped(before, heavy, compared(before, heavy))[0].shown) == 4


def test_rows_without_a_picture_make_way_for_others():
    before, after = told(stood=150), told(stood=130, pictures=album(range(140, 160), 2))
    (lost,) = flipped(before, after, compared(before, after))
    assert [one.row for one in lost.shown] == list(range(140, 150))


def test_what_there_are_no_pictures_of_says_why():
    whole, bare = album(range(200), 1), told(stood=145)
    before = told(stood=150, pictures=whole)
    flips = flipped(before, bare, compared(before, bare))
    assert remark(before, bare, flips) == "No pictures of them were kept."
    won = flipped(bare, before, compared(bare, before))
    assert "none were kept" not in remark(told(stood=150, pictures=whole), told(stood=145, pictures=whole), won)
    none = told(stood=145, pictures=album(range(3), 1))
    assert remark(before, none, flipped(before, none, compared(before, none))) == "No pictures were kept of these rows."
    assert remark(before, before, ()) == ""


def test_the_page_is_self_contained_and_holds_every_number():
    before, after = told(stood=150, pictures=album(range(200), 1)), told(stood=130, pictures=album(range(200), 2))
    source = page(before, after, compared(before, after))
    seen = Page(source)
    assert seen.open == []
    assert not seen.all("script")
    policy = next(meta["content"] for meta in seen.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    sources = [image["src"] for image in seen.all("img")]
    assert len(sources) == 3 * MOST
    assert all(b64decode(src.removeprefix("data:image/png;base64,")).startswith(SIGNATURE) for src in sources)
    assert all(image["alt"] for image in seen.all("img"))
    said = words(seen)
    for part in ("75.0 %", "65.0 %", "-10.0", "linf 4/255, lost", "20 rows: 130, 131", "; 12 of them below", "label 3", "3 → 4 by pgd"):
        assert part in said
    same = words(Page(page(before, before, compared(before, before))))
    assert "Rows that flipped None." in same


def test_a_long_list_of_rows_is_cut():
    before, after = told(stood=150), told(stood=10)
    (lost,) = flipped(before, after, compared(before, after))
    assert lost.listed.endswith(f", {10 + LISTED - 1} and 40 more")


def test_what_a_user_wrote_is_inert():
    def named(report):
        sides = {side: getattr(report, side).model_copy(update={"name": EVIL}) for side in ("model", "data")}
        return report.model_copy(update=sides)

    made = [told(stood=stood, pictures=album(range(200), 1), change=named, by=EVIL) for stood in (150, 130)]
    source = page(*made, compared(*made))
    assert not any(bad in source for bad in ("<script>", "\u202e", "\0"))
    assert source.count("&lt;script&gt;alert(1)&lt;/script&gt;\\u{202e}\\u{0}&quot;&#x27;") >= 4
    assert Page(source).open == []


@pytest.mark.parametrize("stood", [150, 151])
def test_the_same_reports_make_the_same_page(stood):
    made = [told(stood=each, pictures=album(range(200), 1)) for each in (150, stood)]
    assert page(*made, compared(*made)) == page(*made, compared(*made))
