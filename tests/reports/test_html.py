import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from sparring.contract.attacks import PGD, VAT
from sparring.contract.report import Check, Finding, Report, Score, Trust
from sparring.contract.threat import Threat
from sparring.reports.html import html
from sparring.reports.text import CASCADE
from tests.reports import factory

VOID = {"meta", "img", "br", "link", "input", "path", "use", "rect"}
CHROMIUM = shutil.which("chromium")


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, ids, and the text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags, self.ids, self.open, self.text = [], [], [], ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.text += " " if tag in {"dd", "br", "td"} else ""
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def words(page: Page) -> str:
    return " ".join(page.text.split())


def test_page_is_self_contained_well_formed_and_without_scripts():
    source = html(factory.report(warnings=(factory.warning(),)), factory.digits())
    page = Page(source)
    assert page.open == []
    assert not page.all("script")
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    links = [value for _, attrs in page.tags for name, value in attrs.items() if name in {"src", "href", "xlink:href"}]
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in links)
    assert "url(http" not in source
    assert page.all("html")[0]["lang"] == "en"


def test_ids_are_unique_with_several_curves():
    page = Page(html(factory.report(), factory.digits()))
    assert len(page.all("svg")) == 2
    assert len(page.ids) == len(set(page.ids)) > 20


def test_same_report_gives_the_same_bytes():
    report = factory.report(warnings=(factory.warning(),))
    assert html(report, factory.digits()) == html(report, factory.digits())


def test_headline_has_counts_rate_interval_clean_and_trust():
    text = words(Page(html(factory.report(threats=(Threat(norm="linf", eps="8/255"),)))))
    assert "64.0 % robust accuracy within linf 8/255 95 % interval [61.0, 66.9] %: 640 of 1,000 rows held" in text
    assert "clean accuracy 91.2 % [89.3, 92.8]: 912 of 1,000 rows" in text
    assert "no sign was found, but checks were left out" in text


def test_warnings_stand_before_the_result():
    text = words(Page(html(factory.report(warnings=(factory.warning(),)))))
    assert text.index("no better than chance") < text.index("robust accuracy within")
    assert "declare --mean and --std" in text
    assert "chance 0.1" in text


@pytest.mark.parametrize("level", ["reliable", "suspect", "invalid"])
def test_trust_is_told_in_words_with_its_evidence(level):
    trust = Trust(level=level, evidence=(Finding(code="gradient_absent", message="No gradient reaches the input."),))
    text = words(Page(html(factory.report(trust=trust))))
    assert f"{level.capitalize()}: " in text
    assert "No gradient reaches the input." in text


def test_a_warning_that_bears_on_trust_is_told_once_and_the_suite_by_its_version():
    sample = factory.report(warnings=(factory.warning(),), trust=Trust(level="suspect", evidence=(factory.warning(),)))
    run = sample.provenance.model_copy(update={"suite": "quick@7"})
    said = words(Page(html(sample.model_copy(update={"provenance": run}))))
    assert said.count(factory.warning().message) == 1
    assert "rows · suite quick@7 · seed 7" in said


def test_attacks_table_has_every_number_and_setting():
    report = factory.report(threats=(Threat(norm="linf", eps="8/255"),))
    text = words(Page(html(report)))
    for each in report.threats[0].each:
        for count in (each.entered, each.broken, each.first, each.queries, each.forwards, each.backwards):
            assert f"{count:,}" in text
    assert "PGD · steps 20, alpha 2/255, rest at default" in text
    assert "PGD · all at default; step size 0.001961" in text
    assert "pgd-2 pgd:steps=40,restarts=1,start=random,loss=ce" in text


def test_a_cascade_says_so_and_names_its_columns():
    plain, cascade = (words(Page(html(made))) for made in (factory.report(), factory.cascade()))
    for said in (CASCADE, "Worst case so far", "Gain : rows that fell to it and to no attack above it."):
        assert said.replace(" :", ":") in cascade
        assert said.replace(" :", ":") not in plain
    assert "First: rows that fell to it" in plain


def test_rows_carried_and_smoothness_stand_with_their_attack():
    sample = factory.report(threats=(Threat(norm="linf", eps="8/255"),), attacks=(PGD(), VAT()))
    pgd, vat = sample.threats[0].each
    each = (pgd.model_copy(update={"carried": 12}), vat.model_copy(update={"smoothness": 0.25}))
    told = sample.model_copy(update={"threats": (sample.threats[0].model_copy(update={"each": each}),)})
    text = words(Page(html(told)))
    assert "step size 0.001961 · 12 rows fell at a smaller eps and were not tried again" in text
    assert "VAT direction · all at default · mean KL divergence from the clean prediction 0.25 nats" in text


def test_smallest_changes_have_a_line_in_the_plot_and_a_table():
    found = (factory.minimal("fab", reach=0.1), factory.minimal("fmn", found=100))
    page = Page(html(factory.report(minimal=found)))
    text = words(page)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert "fab 912 of 912 0.05" in text
    assert "fmn 100 of 912 –" in text
    assert text.count("a dash where fewer than half were broken") == 1
    assert "Smallest changes" not in words(Page(html(factory.report())))


HOSTILE = "<script>alert(1)</script>\u202egnp.exe\x00\"'><img src=x>"


def test_everything_a_user_controls_is_inert():
    finding = factory.warning(message=HOSTILE, hint=HOSTILE, evidence={HOSTILE: HOSTILE, "list": [HOSTILE]}, code=HOSTILE)
    sample = factory.report(warnings=(finding,), name=HOSTILE, data=HOSTILE, trust=Trust(level="suspect", evidence=(finding,)))
    run = sample.provenance.model_copy(update={"processor": HOSTILE, "environment": {HOSTILE: HOSTILE}, "search": (HOSTILE,)})
    each = sample.threats[0].model_copy(update={"each": (sample.threats[0].each[0].model_copy(update={"name": HOSTILE}),)})
    sample = sample.model_copy(update={"provenance": run, "threats": (each, *sample.threats[1:])})
    picture = factory.digits(1)[0]._replace(broken_by=HOSTILE)
    source = html(sample, [picture])
    page = Page(source)
    assert page.open == []
    assert not page.all("script")
    assert len(page.all("img")) == 3
    assert "\u202e" not in source
    assert "\x00" not in source
    assert "<script>alert(1)</script>\\u{202e}gnp.exe\\u{0}" in page.text


def test_pictures_have_alternative_texts_and_predictions():
    page = Page(html(factory.report(), factory.digits(2)))
    images = page.all("img")
    assert len(images) == 6
    assert images[3]["alt"] == "Row 17 as it is, predicted 1"
    assert images[5]["alt"] == "Row 17 with the perturbation, predicted 6"
    assert "1 → 6 by pgd row 17, label 1, distance 0.03137" in words(page)


def test_rows_that_are_not_images_and_data_without_labels():
    text = words(Page(html(factory.report(shape=(54,), labelled=False))))
    assert "Examples" not in text
    assert "how often a prediction survives" in text
    assert "1000 × 54" in text


def test_empty_classes_curve_and_rows_do_not_break_the_page():
    bare = factory.report(classes=0).model_copy(update={"curve": (), "clean": Score(count=0, total=0)})
    first = bare.threats[0].model_copy(update={"worst": Score(count=0, total=0), "median_distance": None})
    page = Page(html(bare.model_copy(update={"threats": (first,)})))
    assert "no rows" in page.text
    assert "nan" not in page.text.lower().split()


@pytest.mark.parametrize(("count", "folds"), [(20, 2), (21, 3)])
def test_a_long_table_of_classes_is_folded_away(count, folds):
    page = Page(html(factory.report(classes=count)))
    assert page.open == []
    assert len(page.all("details")) == folds
    assert ("All 21 classes" in page.text) == (count == 21)


def test_settings_facts_and_commands_are_there():
    report = factory.report()
    text = words(Page(html(report)))
    assert "sparring evaluate mdl_" in text
    assert "sparring evaluate 'digits cnn.pt2' digits.npz" in text
    assert factory.SHA in text
    assert "MKL_CBWR AVX2,STRICT" in text
    assert '"seed": 7' in text
    assert "1,199,882" in text


def test_report_read_back_from_json_gives_the_same_page():
    report = factory.report()
    assert html(Report.model_validate_json(report.model_dump_json())) == html(report)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [1200, 400])
def test_nothing_sticks_out_sideways_in_a_browser(tmp_path, width):
    sample = factory.cascade(warnings=(factory.warning(),), minimal=(factory.minimal("fab"), factory.minimal("deepfool")))
    (tmp_path / "page.html").write_text(html(sample, factory.digits()), encoding="utf-8")
    probe = "document.title = 'over ' + (f.contentDocument.documentElement.scrollWidth - f.contentDocument.documentElement.clientWidth)"
    frame = f'<iframe id=f src="page.html" width={width} height=900 onload="{probe}"></iframe>'
    (tmp_path / "frame.html").write_text(f"<title>loading</title>{frame}", encoding="utf-8")
    quiet = [f"--disable-{part}" for part in ("gpu", "quic", "background-networking", "component-update", "sync")]
    found = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--no-first-run", *quiet, "--allow-file-access-from-files",
         f"--user-data-dir={tmp_path}/profile", "--window-size=1300,1000", "--dump-dom", (tmp_path / "frame.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert re.search(r"<title>(.*?)</title>", found.stdout).group(1) == "over 0"


def test_corruptions_have_a_section_of_their_own():
    page = Page(html(factory.corrupted("shot_noise", "contrast")))
    said = words(page)
    assert page.open == []
    assert "mean corruption accuracy 70.0 %, clean accuracy 91.2 %" in said
    assert "shot noise 90.0 % 80.0 % 70.0 % 60.0 % 50.0 % 70.0 %" in said
    assert "mean of all 70.0 %" in said
    assert "mean of all" not in words(Page(html(factory.corrupted("contrast")))), "one is its own mean"
    assert "Common corruptions" not in words(Page(html(factory.report())))


CHECKS = (
    Check(code="model_changed", state="passed", message="The weights are those that were uploaded."),
    Check(
        code="not_converged", state="flagged", level="suspect", message="2 of 32 rows fell.", hint="Take more steps.", evidence={"rows": 2}
    ),
    Check(code="scale_matters", state="left_out", message="It would have cost too much."),
)


def test_checks_stand_in_a_table_once_where_they_say_the_same_under_every_threat():
    sample = factory.report(trust=Trust(level="unchecked", checks=(CHECKS[0], CHECKS[2])))
    own = Trust(level="suspect", evidence=(), checks=CHECKS)
    first, *others = sample.threats
    sample = sample.model_copy(update={"threats": (first.model_copy(update={"trust": own}), *others)})
    page = Page(html(sample))
    text = words(page)
    assert text.count("The weights are those that were uploaded.") == 1
    assert "under every threat" in text
    assert "not converged flagged: suspect 2 of 32 rows fell. Take more steps. rows 2" in text
    assert "scale matters left out It would have cost too much." in text
    assert text.count("Left out: scale matters.") == 2, "of the one threat that is suspect, and once for the others"
    assert "no sign found" in text


def test_what_a_check_says_is_inert():
    hostile = Check(code="mode_mismatch", state="flagged", level="invalid", message=HOSTILE, evidence={"parts": [HOSTILE]})
    page = html(factory.report(trust=Trust(level="invalid", checks=(hostile,))))
    assert HOSTILE not in page


def test_queries_have_a_drawing_and_a_table():
    page = html(factory.asked())
    assert 'id="queries"' in page
    assert page.count("Broken rows against queries") == 1
    assert "queries-0-" in page
    assert ">2,400</td>" in page
    assert 'id="queries"' not in html(factory.report())
