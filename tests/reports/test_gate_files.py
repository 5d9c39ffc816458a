"""A verdict in every form."""

import hashlib
import json
import os
import re
import sys
import tarfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jsonschema import Draft4Validator, Draft202012Validator
from junitparser import Error, Failure, JUnitXml, Skipped

from sparring.contract.verdict import Verdict
from sparring.reports import gate_text
from sparring.reports.badge import badge
from sparring.reports.gate_html import html
from sparring.reports.gate_markdown import markdown
from sparring.reports.junit import junit
from sparring.reports.sarif import sarif
from tests.reports import verdicts
from tests.reports.sarif_subset import SUBSET

CANDIDATE = Path(sys.prefix) / "share" / "sarif_om-1.0.4.tar.gz"
CANDIDATE_SHA256 = "cd5f416b3083e00d402a92e449a7ff67af46f11241073eea0461802a3b5aef98"
TEXTS = (junit, sarif, markdown, html, badge)


def cases(verdict: Verdict):
    (suite,) = JUnitXml.fromstring(junit(verdict).encode())
    return suite, {case.name: case for case in suite}


def results(verdict: Verdict) -> dict[str, dict]:
    (run,) = json.loads(sarif(verdict))["runs"]
    return {result["ruleId"]: result for result in run["results"]}


def test_junit_has_a_case_for_each_rule_and_counts_them():
    suite, found = cases(verdicts.verdict())
    assert list(found) == [rule.id for rule in verdicts.ALL]
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (6, 1, 1, 2)
    kinds = {name: [type(result) for result in case.result] for name, case in found.items()}
    assert kinds == {"robust-near": [], "clean": [Failure], "slow": [], "drop": [Error], "cats": [Skipped], "later": [Skipped]}
    assert "at least 40 %" in found["clean"].result[0].message
    assert found["clean"].result[0].text.startswith("ci/gate one.yaml:20:")
    assert "VIOLATED (warning)" in found["slow"].system_out
    assert "a.person" in found["cats"].result[0].message


def test_junit_of_a_failed_evaluation_is_all_errors():
    suite, found = cases(verdicts.failed())
    assert suite.errors == suite.tests == len(verdicts.ALL)
    assert "cannot be reached" in found["clean"].result[0].message


@pytest.fixture(scope="module")
def standard() -> Draft4Validator:
    """The committee's schema: 2.1.0 if there is one, else the candidate before it, whose one other word of what we write is renamed."""
    final = Path(os.environ.get("SPARRING_TEST_DATA") or "/nowhere") / "sarif-schema-2.1.0.json"
    if final.exists():
        return Draft4Validator(json.loads(final.read_text()))
    if not CANDIDATE.exists():
        pytest.skip("NO SARIF SCHEMA: `make .venv/.tools` fetches one; our own closed subset was checked")
    assert hashlib.sha256(CANDIDATE.read_bytes()).hexdigest() == CANDIDATE_SHA256
    with tarfile.open(CANDIDATE) as archive, archive.extractfile("sarif_om-1.0.4/sarif-2.1.0-rtm.4.json") as file:
        schema = json.load(file)
    suppression = schema["definitions"]["suppression"]["properties"]
    suppression["status"] = suppression.pop("state")
    return Draft4Validator(schema)


@pytest.mark.parametrize("verdict", [verdicts.verdict(), verdicts.hostile(), verdicts.failed()], ids=["all", "hostile", "failed"])
def test_sarif_is_sarif(verdict: Verdict):
    written = json.loads(sarif(verdict, "1.2.3"))
    Draft202012Validator(SUBSET, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(written)
    assert not Draft202012Validator(SUBSET).is_valid(written | {"version": "2.0.0"})


@pytest.mark.parametrize("verdict", [verdicts.verdict(), verdicts.hostile(), verdicts.failed()], ids=["all", "hostile", "failed"])
def test_sarif_against_the_schema_of_the_standard(verdict: Verdict, standard: Draft4Validator):
    written = json.loads(sarif(verdict))
    standard.validate(written)
    assert not standard.is_valid(written | {"version": "2.0.0"})
    for result in written["runs"][0]["results"]:
        result["kind"] = "perhaps"
    assert not standard.is_valid(written)


def test_sarif_says_what_became_of_each_rule_at_its_line():
    found = results(verdicts.verdict())
    assert {name: (r["kind"], r["level"]) for name, r in found.items()} == {
        "robust-near": ("pass", "none"),
        "clean": ("fail", "error"),
        "slow": ("fail", "warning"),
        "drop": ("open", "none"),
        "cats": ("fail", "error"),
        "later": ("notApplicable", "none"),
    }
    place = found["clean"]["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "ci/gate%20one.yaml"}, "region": {"startLine": 20}}
    (suppression,) = found["cats"]["suppressions"]
    assert (suppression["kind"], suppression["status"]) == ("external", "accepted")
    assert "2030-01-31" in suppression["justification"]
    assert "suppressions" not in found["clean"]


def test_sarif_fingerprints_tell_rules_apart_and_stay():
    prints = [r["partialFingerprints"] for r in results(verdicts.verdict()).values()]
    again = [
        r["partialFingerprints"] for r in results(verdicts.verdict(*(r.model_copy(update={"line": 99}) for r in verdicts.ALL))).values()
    ]
    assert prints == again
    assert len({json.dumps(each) for each in prints}) == len(prints)


def test_markdown_stays_within_its_size_and_says_what_it_left_out():
    many = [verdicts.rule(id=f"r{at}", why="because " * 60) for at in range(300)]
    written = markdown(verdicts.verdict(*many))
    assert len(written.encode()) <= 60_000
    shown = len(re.findall(r"^\| r\d", written, re.MULTILINE))
    assert 0 < shown < 300
    assert f"and {300 - shown} more rules" in written
    assert "more rules" not in markdown(verdicts.verdict())


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def test_html_holds_no_script_and_fetches_nothing():
    page = _Tags()
    page.feed(html(verdicts.hostile()))
    assert not {"script", "img", "link", "iframe", "a", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "style")]
    assert "default-src 'none'" in html(verdicts.verdict())


@pytest.mark.parametrize("form", TEXTS)
def test_whatever_a_user_calls_things_is_inert(form):
    written = form(verdicts.hostile())
    assert "\u202e" not in written
    assert "\x07" not in written
    assert "<script>" not in written or form in (sarif, badge)  # JSON that no browser reads as a page
    assert "::error" not in written
    assert not re.search(r"##(\[|vso)", written)


def test_hostile_words_are_no_markup():
    assert "](javascript" not in markdown(verdicts.hostile())
    assert "@org" not in markdown(verdicts.hostile()).replace("\\@org", "")
    assert "](javascript" not in json.loads(sarif(verdicts.hostile()))["runs"][0]["results"][0]["message"]["text"].replace("\\]", "")
    _, found = cases(verdicts.hostile())
    assert "]]>" in found["other"].result[0].message


@pytest.mark.parametrize("word", ["::error::x", "##[error]x", "##vso[task]", "###[group]", ":::error", "a\n::set-output name=x::y"])
def test_no_line_is_a_command_of_a_runner(word: str):
    said = gate_text.inert(word)
    assert "\n" not in said
    assert not re.search(r"::[a-z]|##\[|##vso\[", said)


def test_ordinary_words_stay_as_they_are():
    assert gate_text.inert("see #123: models::resnet? 50 % of C++") == "see #123: models: :resnet? 50 % of C++"
    assert gate_text.inert("a: b, #1") == "a: b, #1"


@pytest.mark.parametrize(
    ("verdict", "message", "color"),
    [
        (verdicts.verdict(verdicts.rule()), "pass, 43.1 %", "brightgreen"),
        (verdicts.verdict(verdicts.rule(), verdicts.rule(id="b", value=0.2, status="violated")), "violated, 20.0 %", "red"),
        (verdicts.verdict(verdicts.rule(metric="clean", threat=None, status="inconclusive")), "inconclusive", "yellow"),
        (verdicts.failed(), "could not evaluate", "lightgrey"),
    ],
)
def test_a_badge_says_the_verdict(verdict: Verdict, message: str, color: str):
    said = json.loads(badge(verdict))
    assert said == {"schemaVersion": 1, "label": "robustness", "message": message, "color": color}


def test_the_headline_counts():
    assert gate_text.headline(verdicts.verdict()).startswith("VIOLATED: 1 of 5 rules hold, 2 keep the gate shut, 1 waived, 1 not applied;")
    assert gate_text.headline(verdicts.failed()).startswith("COULD NOT EVALUATE: The service cannot be reached; digits.pt2")
