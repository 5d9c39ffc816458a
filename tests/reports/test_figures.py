import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from sparring.reports.figures import amplified, curve_svg, picture_png, queries_svg
from sparring.reports.text import asking, curves
from tests.reports import factory


def test_curve_is_the_same_bytes_each_time_and_holds_no_colour_of_its_own():
    curve = curves(factory.report())[0]
    drawn = curve_svg(curve, "a")
    assert drawn == curve_svg(curve, "a")
    assert drawn.startswith("<svg")
    assert "<style" not in drawn
    assert "var(--accent)" in drawn
    assert "#01020" not in drawn
    assert "<dc:date>" not in drawn


def test_ids_begin_with_the_given_word_and_references_resolve():
    root = ET.fromstring(curve_svg(curves(factory.report())[0], "here"))
    ids = {e.get("id") for e in root.iter() if e.get("id")}
    assert ids
    assert all(i.startswith("here-") for i in ids)
    used = {e.get("{http://www.w3.org/1999/xlink}href") for e in root.iter()} - {None}
    assert {u.removeprefix("#") for u in used} <= ids


def test_text_of_the_curve_is_text():
    root = ET.fromstring(curve_svg(curves(factory.report())[0], "here"))
    said = " ".join("".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text"))
    assert "eps (linf), in units of the data" in said


def drawn(*minimal):
    (curve, _) = curves(factory.report(minimal=minimal))
    root = ET.fromstring(curve_svg(curve, "a"))
    lines = [e for e in root.iter("{http://www.w3.org/2000/svg}g") if e.get("id", "").startswith("a-line2d")]
    said = ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]
    return len(lines), said


def test_each_attack_for_the_smallest_change_adds_a_line_with_its_name():
    lines, said = drawn()
    more, named = drawn(factory.minimal("fab"), factory.minimal("fmn", reach=0.2))
    assert "worst case" not in said
    assert {"worst case", "fab", "fmn"} <= set(named)
    assert more >= lines + 4  # two lines, and each once more in the legend


def test_a_few_far_rows_do_not_press_the_others_together():
    (curve, _) = curves(factory.report(minimal=(factory.minimal(reach=0.1),)))
    far = curve.minimal[0].curve[-1].model_copy(update={"eps": 50.0})
    stretched = curve._replace(minimal=(curve.minimal[0].model_copy(update={"curve": (*curve.minimal[0].curve, far)}),))
    ticks = [float(word) for word in re.findall(r">(0\.\d+)<", curve_svg(stretched, "a"))]
    assert 0.03 < max(ticks) < 0.2


@pytest.mark.parametrize("found", [0, 5, factory.CLEAN])
def test_curves_of_few_or_no_rows_are_drawn(found):
    assert "fab" in drawn(factory.minimal(found=found))[1]


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 3)])
def test_picture_comes_back_as_it_went(shape):
    picture = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    back = np.asarray(Image.open(io.BytesIO(picture_png(picture))))
    np.testing.assert_array_equal(back, picture.squeeze(2) if shape[-1] == 1 else picture)


@pytest.mark.parametrize("picture", [np.zeros((3, 3), np.float32), np.zeros((3, 3, 2), np.uint8), np.zeros(9, np.uint8)])
def test_what_is_no_picture_is_refused(picture):
    with pytest.raises(ValueError, match="a picture is uint8"):
        picture_png(picture)


def test_amplified_shows_no_change_as_mid_grey():
    delta = np.array([-0.2, -0.1, 0.0, 0.05, 0.1, 0.2])
    assert amplified(delta, 0.1).tolist() == [0, 0, 128, 192, 255, 255]
    assert amplified(np.zeros(3), 0.0).tolist() == [128] * 3


def test_queries_are_drawn_for_attacks_that_ask():
    (asked,) = asking(factory.asked())
    assert [each.name for each in asked.each] == ["square"]
    drawn = queries_svg(asked, "a")
    assert drawn == queries_svg(asked, "a")
    root = ET.fromstring(drawn)
    said = ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"square", "queries of each row", "rows broken, %"} <= set(said)
    one = asked._replace(each=(asked.each[0].model_copy(update={"by_queries": asked.each[0].by_queries[:1]}),))
    assert queries_svg(one, "a").startswith("<svg"), "all fell to the first query"
