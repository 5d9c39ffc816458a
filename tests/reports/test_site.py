from datetime import timedelta

from sparring.reports import retrained_html
from sparring.reports.compare import Told
from sparring.reports.frame import HEAD
from sparring.reports.html import html
from sparring.reports.site import Listed, index, since
from tests.client.gate import sample
from tests.reports import factory, retrained
from tests.reports.test_html import Page


def told(*given, name="net", days=0, **more) -> Told:
    found = sample.evidence(*given, **more)
    run = found.report.provenance.model_copy(update={"finished": factory.WHEN + timedelta(days=days)})
    model = found.report.model.model_copy(update={"name": name})
    return Told(found.report.model_copy(update={"model": model, "provenance": run}), found.rows)


def listed(report, *files, since=None) -> Listed:
    return Listed(report, files or (("JSON", "reports/a/report.json"),), since)


def test_every_page_of_a_report_begins_as_the_index_does():
    assert html(factory.report()).startswith(HEAD)
    assert retrained_html.retrained_html(retrained.report()).startswith(HEAD)
    assert index([listed(factory.report())]).startswith(HEAD)


def test_a_report_is_set_beside_the_last_comparable_one_before_it():
    reports = [told(stood=130, days=2), told(stood=150), told(name="other", days=1), told(stood=140, days=1)]
    other = factory.report(name="net").model_copy(update={"provenance": told(days=3).report.provenance})
    found = since([*reports, Told(other, reports[0].rows)])
    assert [each and each.earlier for each in found] == [3, None, None, 1, None]
    assert found[0].found[1].lost == tuple(range(130, 140))


def test_models_are_listed_with_their_reports_the_newest_first():
    reports = [told(days=0), told(name="late", days=5), told(stood=130, days=2)]
    page = Page(index([listed(each.report, since=found) for each, found in zip(reports, since(reports), strict=True)]))
    assert [attributes["id"] for tag, attributes in page.tags if tag == "h2"] == ["model-0", "model-1"]
    assert page.text.index("late") < page.text.index("net")
    assert page.text.index("2026-03-03 12:30") < page.text.index("2026-03-01 12:30")
    for said in ("3 reports of 2 models", "linf 4/255", "65.0 %", "[58.2, 71.3]", "95.0 %", "-10.0 [", "unchecked"):
        assert said in page.text
    assert page.text.count("–") == 2


def test_each_threat_has_a_line_and_its_own_trust():
    page = index([listed(factory.report(), ("report", "reports/a/report.html"), ("rows", "reports/a/rows.csv"))])
    for said in ("linf 4/255", "linf 8/255", "l2 0.5"):
        assert page.count(said) == 1
    assert page.count('rowspan="3"') == 3
    assert '<a href="reports/a/report.html">report</a> · <a href="reports/a/rows.csv">rows</a>' in page


def test_nothing_a_user_named_does_anything():
    hostile = '</h2><script src="//evil">1</script><img src=x onerror=alert(1)>\u202e\0'
    source = index([listed(factory.report(name=hostile, data=hostile))])
    page = Page(source)
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "\\u{202e}\\u{0}" in page.text
    assert "\u202e" not in source
    assert page.open == []
