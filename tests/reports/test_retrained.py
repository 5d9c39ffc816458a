"""The report of a retrain job, in every form."""

from html import unescape

import pytest

from sparring.contract.report import Finding
from sparring.contract.retrained import REPORT, RetrainReport
from sparring.reports import retrained_text as words
from sparring.reports.retrained_html import retrained_html
from sparring.reports.retrained_markdown import retrained_markdown
from tests.reports import factory, retrained

ALARM = Finding(code="catastrophic_overfitting", message="PGD fell.", hint="Take more steps.")


@pytest.mark.parametrize("form", [retrained_html, retrained_markdown])
def test_every_form_says_what_came_of_it_what_speaks_against_it_and_what_to_do(form):
    report = retrained.report(warnings=(ALARM,))
    told = unescape(form(report)).replace("\\", "")
    for said in (*report.advice, ALARM.message, ALARM.hint, words.CHOSEN, words.GRADIENTS, words.parts_text(report)):
        assert said in told
    for table in (words.comparison(report), *(words.attacks(report, at) for at in range(len(report.threats)))):
        for row in table.rows:
            assert all(cell in told for cell in row)
    for result in report.each:
        assert words.trained_text(result) in told


@pytest.mark.parametrize("form", [retrained_html, retrained_markdown])
def test_what_speaks_against_the_number_stands_beside_it(form):
    masked = Finding(code="weaker_attacker_wins", message="18 rows fell to black-box attacks alone.", hint="Quote the worst case.")
    given = retrained.result("pgd")
    first = given.after.threats[0]
    doubted = first.model_copy(update={"trust": first.trust.model_copy(update={"level": "suspect", "evidence": (masked,)})})
    after = given.after.model_copy(update={"threats": (doubted, *given.after.threats[1:]), "warnings": (masked,)})
    told = unescape(form(retrained.report(given.model_copy(update={"after": after})))).replace("\\", "")
    assert masked.message in told
    assert masked.hint in told


def test_the_defenses_stand_beside_the_model_as_it_was():
    head, rows = words.comparison(retrained.report())
    assert [row[0] for row in rows] == ["as uploaded", "pgd (handed on)", "vat"]
    assert all(len(row) == len(head) for row in rows)
    pgd = dict(zip(head, rows[1], strict=True))
    assert (pgd["Gradients"], pgd["Clean"], pgd["linf 4/255"], pgd["Epoch"]) == ("8", "90.0 %", "82.0 %", "5 of 5")
    assert rows[1][3:6] == ("-1.2, p = 0.126", "82.0 %", "+18.0, p < 0.001")


def test_attacks_it_was_not_trained_against_stand_there_too():
    head, rows = words.attacks(retrained.report(), 0)
    assert head == ("Attack", "as uploaded", "pgd", "vat")
    assert [row[0] for row in rows] == [*(each.name for each in factory.report().threats[0].each), "worst case"]


@pytest.mark.parametrize("end", words.ENDS)
def test_how_a_training_ended_is_said(end):
    said = words.trained_text(retrained.result("pgd", end=end, reason="why not", epoch=3, resumed=2))
    assert words.ENDS[end] in said
    assert ("why not" in said) == (end != "finished")
    assert "the weights of epoch 3" in said
    assert "2 epochs taken over" in said


@pytest.mark.parametrize("form", [retrained_html, retrained_markdown])
def test_what_a_user_wrote_is_escaped(form):
    report = retrained.report()
    evil = report.model.model_copy(update={"name": "<script>alert(1)</script>"})
    assert "<script>" not in form(report.model_copy(update={"model": evil}))


def test_reports_of_both_kinds_are_told_apart():
    for report in (retrained.report(), factory.report()):
        assert REPORT.validate_json(report.model_dump_json()) == report
    assert isinstance(REPORT.validate_json(retrained.report().model_dump_json()), RetrainReport)
