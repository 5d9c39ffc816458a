import json

import pytest
import yaml

from sparring.contract.attacks import SUITES
from sparring.contract.report import Score, Trust
from sparring.reports.card import card, robustbench
from sparring.reports.markdown import markdown
from tests.reports import factory

RELIABLE = Trust(level="reliable")


def parts(source: str):
    """Metadata and text, as the Hub takes a README apart."""
    before, head, text = source.split("---\n", 2)
    assert before == ""
    return yaml.safe_load(head), text


def suite(report, name):
    return report.model_copy(update={"provenance": report.provenance.model_copy(update={"suite": name})})


def test_a_card_is_metadata_and_the_report_in_markdown():
    report = suite(factory.report(trust=RELIABLE), "standard@1")
    about, text = parts(card(report))
    assert text == "\n" + markdown(report)
    (entry,) = about["model-index"]
    (result,) = entry["results"]
    assert entry["name"] == "digits cnn.pt2"
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"] == {"type": "digits.npz", "name": "digits.npz", "args": {"sha256": factory.SHA}}
    assert [(one["type"], one["value"], one["name"]) for one in result["metrics"]] == [
        ("accuracy", 91.2, "clean accuracy"),
        ("accuracy", 64.0, "robust accuracy within linf 4/255 (standard@1; trust: reliable)"),
        ("accuracy", 49.0, "robust accuracy within linf 8/255 (standard@1; trust: reliable)"),
        ("accuracy", 34.0, "robust accuracy within l2 0.5 (standard@1; trust: reliable)"),
    ]
    low, high = (round(100 * end, 2) for end in Score(count=640, total=1000).interval)
    assert result["metrics"][1]["args"] == {"count": 640, "total": 1000, "interval_95": [low, high], "trust": "reliable"}


@pytest.mark.parametrize(("shape", "task"), [((3, 32, 32), "image-classification"), ((30,), "tabular-classification"), ((2, 500), "other")])
def test_the_task_follows_from_the_shape_of_a_row(shape, task):
    about, _ = parts(card(factory.report(shape=shape)))
    assert about["model-index"][0]["results"][0]["task"]["type"] == task


def test_a_number_that_is_invalid_or_of_no_rows_is_no_metric():
    report = factory.report(trust=Trust(level="invalid"))
    first = report.threats[0].model_copy(update={"worst": Score(count=0, total=0), "trust": RELIABLE})
    about, text = parts(card(report.model_copy(update={"threats": (first, *report.threats[1:])})))
    assert [one["name"] for one in about["model-index"][0]["results"][0]["metrics"]] == ["clean accuracy"]
    assert "Invalid: " in text


def test_without_labels_nothing_is_called_an_accuracy():
    about, _ = parts(card(factory.report(labelled=False)))
    names = [one["name"] for one in about["model-index"][0]["results"][0]["metrics"]]
    assert len(names) == 3
    assert all(name.startswith("robust share of predictions kept within ") for name in names)


def test_what_is_certified_is_a_metric_of_its_own():
    report = factory.report(threats=factory.THREATS[:1])
    proved = report.model_copy(
        update={
            "threats": (report.threats[0].model_copy(update={"certified": 310}),),
            "provenance": report.provenance.model_copy(update={"proof": "linear bounds"}),
        }
    )
    metrics = parts(card(proved))[0]["model-index"][0]["results"][0]["metrics"]
    assert [(one["value"], one["name"]) for one in metrics[2:]] == [(31.0, "certified accuracy within linf 4/255 (linear bounds)")]


def test_a_name_stays_a_name():
    hostile = "net\n---\nlicense: mit\n- {a: !!python/object:os.system x}\u202e\0 # é"
    about, _ = parts(card(factory.report(name=hostile, data=hostile)))
    assert set(about) == {"tags", "model-index"}
    said = "net --- license: mit - {a: !!python/object:os.system x}\\u{202e}\\u{0} # é"
    assert about["model-index"][0]["name"] == said
    assert json.loads(robustbench(factory.report(name=hostile)))[0]["name"] == said


def attacked(report, *, attacks=SUITES["standard"][1], **changes):
    """By these attacks; fields of the job may be changed."""
    first = report.threats[0].each[0]
    each = tuple(first.model_copy(update={"attack": attack, "name": f"one-{at}"}) for at, attack in enumerate(attacks))
    threats = tuple(result.model_copy(update={"each": each}) for result in report.threats)
    return suite(report.model_copy(update={"threats": threats, "job": report.job.model_copy(update=changes)}), "standard@1")


def test_an_entry_of_robustbench():
    report = attacked(factory.report(threats=factory.THREATS[1:2], trust=RELIABLE))
    entry = json.loads(robustbench(report))
    low, high = (100 * end for end in report.threats[0].worst.interval)
    assert entry.pop("footnote") == (
        f"Measured by Sparring 0.1.0 within linf 8/255 by standard@1 on 1,000 rows: 95 % interval [{low:.2f}, {high:.2f}], trust: reliable."
    )
    assert entry == {
        **dict.fromkeys(("link", "authors", "additional_data", "venue", "architecture", "reported", "external")),
        "name": "digits cnn.pt2",
        "number_forward_passes": 1,
        "dataset": "digits",
        "eps": "8/255",
        "clean_acc": "91.20",
        "autoattack_acc": "64.00",
        "unreliable": False,
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attacks": SUITES["standard"][1][1:]}, "by standard@1 on"),
        ({"precision": "fast"}, "by standard@1+fast on"),
        ({"knowledge": frozenset({"black"}), "attacks": SUITES["standard"][1][-1:]}, "by standard@1, black box alone on"),
    ],
)
def test_less_than_the_whole_suite_is_not_autoattack(changes, said):
    entry = json.loads(robustbench(attacked(factory.report(threats=factory.THREATS[1:2], trust=RELIABLE), **changes)))
    assert (entry["autoattack_acc"], entry["external"]) == (None, "64.00")
    assert said in entry["footnote"]


def test_only_the_standard_suite_counts_as_autoattack():
    entries = json.loads(robustbench(factory.report(trust=Trust(level="suspect"))))
    assert [(one["autoattack_acc"], one["external"], one["eps"]) for one in entries] == [
        (None, "64.00", "4/255"),
        (None, "49.00", "8/255"),
        (None, "34.00", "0.5"),
    ]
    assert all(one["unreliable"] for one in entries)
