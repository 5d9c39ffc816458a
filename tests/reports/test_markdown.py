import re

from sparring.contract.endpoints import Budget, HttpEndpoint
from sparring.contract.report import Check, Trust
from sparring.contract.specs import ModelSpec
from sparring.contract.threat import Threat
from sparring.reports import rerun
from sparring.reports.html import html
from sparring.reports.markdown import escape, fenced, markdown
from sparring.reports.text import CASCADE
from tests.reports import factory


def test_markdown_holds_the_facts():
    said = markdown(factory.report(warnings=(factory.warning(),)))
    assert said.startswith("# digits cnn\\.pt2 on digits\\.npz: robustness report")
    assert "| linf 8/255 | **49.0 %** | [45.9, 52.1] | 490 of 1,000 | 91.2 % [89.3, 92.8] | unchecked |" in said
    assert "no sign was found, but checks were left out" in said
    assert "no better than chance" in said
    assert "sparring evaluate mdl_" in said
    assert said.endswith("}\n```\n")


def test_a_cascade_and_smallest_changes_are_told():
    said = markdown(factory.cascade(minimal=(factory.minimal(found=100), factory.minimal("fmn", "l2", reach=0.5))))
    assert CASCADE in said
    assert "| Attack | Worst case so far | Rows | Entered | Broken | Gain |" in said
    assert "| fab | linf | 100 of 912 | – |\n| fmn | l2 | 912 of 912 | 0.25 |" in said
    plain = markdown(factory.report())
    assert "| Attack | Robust accuracy | Rows | Entered | Broken | First |" in plain
    assert "Smallest changes" not in plain


def test_what_counts_do_not_say_is_said_beside_the_settings():
    sample = factory.report()
    carried = sample.threats[0].each[1].model_copy(update={"carried": 7})
    threat = sample.threats[0].model_copy(update={"each": (carried,)})
    said = markdown(sample.model_copy(update={"threats": (threat,)}))
    assert "- pgd: steps 20, alpha 2/255, rest at default; 7 rows fell at a smaller eps and were not tried again" in said


def test_a_warning_that_bears_on_trust_is_told_once():
    warning, other = factory.warning(), factory.warning(message="Only here.", code="only_here")
    trust = Trust(level="suspect", evidence=(warning, other))
    said = markdown(factory.report(warnings=(warning,), threats=(Threat(norm="linf", eps=0.1),), trust=trust))
    assert (said.count(f"`{warning.code}`"), said.count("`only_here`")) == (1, 1)
    assert "masking" not in said


def test_the_suite_is_told_by_its_version():
    sample = factory.report()
    run = sample.provenance.model_copy(update={"suite": "quick@7"})
    assert "- **Attacks**: suite quick\\@7\n" in markdown(sample.model_copy(update={"provenance": run}))
    assert "- **Attacks**: listed by the job\n" in markdown(sample)


def test_every_table_row_has_the_cells_of_its_head():
    said = markdown(factory.report(name="a|b", data="c|d", minimal=(factory.minimal(),)))
    for table in re.findall(r"(?:^\|.*\n?)+", said, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().splitlines()}) == 1


def test_hostile_text_is_inert():
    assert escape("<b>*x*</b>|`y`\n[z](http://e)") == "&lt;b&gt;\\*x\\*&lt;/b&gt;\\|\\`y\\` \\[z\\]\\(http\\://e\\)"
    hostile = "<script>\n# head\n| a | b |\u202e"
    said = markdown(factory.report(name=hostile, data=hostile, warnings=(factory.warning(message=hostile, evidence={"x": hostile}),)))
    outside = re.sub(r"```.*?```", "", said, flags=re.DOTALL)
    assert "<script>" not in outside
    assert "\u202e" not in said
    assert "\n# head" not in said


def test_fence_outlasts_the_backticks_inside():
    assert fenced("a ```` b") == "`````\na ```` b\n`````"


def test_corruptions_have_a_table_of_their_own():
    said = markdown(factory.corrupted("shot_noise", "contrast"))
    assert "## Common corruptions\n\n| Corruption | Severity 1 |" in said
    assert "| shot noise | 90.0 % | 80.0 % | 70.0 % | 60.0 % | 50.0 % | 70.0 % |" in said
    assert "| mean of all |  |  |  |  |  | 70.0 % |" in said
    assert "Common corruptions" not in markdown(factory.report())


def test_an_endpoint_is_told_by_its_address_and_what_it_was_asked():
    spec = ModelSpec(endpoint=HttpEndpoint(url="https://models.example.com/predict"))
    whole = factory.report()
    told = whole.model_copy(
        update={
            "model": whole.model.model_copy(update={"format": "endpoint", "spec": spec, "parameters": 0, "id": "mdl_" + "a" * 20}),
            "cost": whole.cost.model_copy(update={"asked": 1234, "sent": 1300}),
        }
    )
    said = markdown(told)
    assert "models\\.example\\.com/predict" in said
    assert "0 parameters" not in said
    assert "1,234 rows asked in 1,300 requests" in said
    page = html(told, [])
    assert "https://models.example.com/predict" in page
    assert "1,300 requests" in page
    assert "mdl_" + "a" * 20 in rerun.command_from_files(told)


def test_the_command_names_the_budget():
    whole = factory.report()
    told = whole.model_copy(update={"job": whole.job.model_copy(update={"budget": Budget(asked=50, sent=60)})})
    assert "--asked 50 --sent 60" in rerun.command(told)


def test_checks_are_a_table_and_inert():
    check = Check(code="mode_mismatch", state="flagged", level="invalid", message="2 parts, first <b>|*x*.")
    said = markdown(factory.report(threats=(Threat(norm="linf", eps=0.1),), trust=Trust(level="invalid", checks=(check,))))
    assert "| mode mismatch | flagged: invalid | 2 parts, first &lt;b&gt;\\|\\*x\\*\\. |" in said
    assert "## Checks" not in markdown(factory.report())


def test_queries_have_a_table():
    said = markdown(factory.asked())
    broken, entered = (getattr(factory.asked().threats[0].each[0], name) for name in ("broken", "entered"))
    assert f"| square | linf 4/255 | {broken} of {entered} | 120 | 2,400 |" in said
    assert "## Queries" not in markdown(factory.report())
