import pytest

from sparring.contract.attacks import FGSM, PGD
from sparring.contract.jobs import Craft
from sparring.contract.report import CurvePoint, Score
from sparring.contract.threat import Threat
from sparring.reports import text
from tests.reports import factory


@pytest.mark.parametrize(
    ("count", "total", "said"),
    [
        (431, 1000, "43.1 % [40.1, 46.2]"),
        (0, 10, "0.0 % [0.0, 27.8]"),
        (10, 10, "100.0 % [72.2, 100.0]"),
        (9999, 10000, ">99.9 % [99.9, 100.0]"),
        (1, 10000, "<0.1 % [0.0, 0.1]"),
        (0, 0, "no rows"),
    ],
)
def test_percent(count, total, said):
    assert text.percent(Score(count=count, total=total)) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.417, "0.42 s"), (12.34, "12.3 s"), (59.97, "60.0 s"), (247, "4 min 07 s"), (3599.7, "1 h 00 min"), (7512, "2 h 05 min")],
)
def test_duration(seconds, said):
    assert text.duration(seconds) == said


def test_threat_text():
    assert text.threat_text(Threat(norm="linf", eps="8/255")) == "linf 8/255"
    assert text.threat_text(Threat(norm="l2", eps=0.5, targeted=True)) == "l2 0.5, targeted"


def test_visible_shows_the_unseen_and_keeps_the_rest():
    assert text.visible("a\u202eb\x00\u200bc\n\tµ∞") == "a\\u{202e}b\\u{0}\\u{200b}c\n\tµ∞"


def test_settings_tell_what_was_set_and_what_stood_at_its_default():
    threat = Threat(norm="linf", eps=0.1)
    assert text.settings_text(FGSM(), threat) == "at default: loss ce"
    assert text.settings_text(PGD(steps=10, alpha=0.01, restarts=2), threat) == (
        "set: steps 10, alpha 0.01, restarts 2; at default: start random, loss ce"
    )
    assert "alpha 0.025 (2.5 eps / steps)" in text.settings_text(PGD(steps=10), threat)


def test_threats_of_one_norm_share_a_curve_that_begins_at_the_clean_accuracy():
    points = (
        CurvePoint(norm="linf", eps=0.2, robust=Score(count=1, total=10)),
        CurvePoint(norm="l2", eps=1.0, robust=Score(count=2, total=10)),
        CurvePoint(norm="linf", eps=0.1, robust=Score(count=3, total=10)),
        CurvePoint(norm="linf", eps=0.1, robust=Score(count=7, total=10), targeted=True),
    )
    found = text.curves(factory.report().model_copy(update={"curve": points}))
    assert [(c.title, [p.eps for p in c.points]) for c in found] == [
        ("linf", [0, 0.1, 0.2]),
        ("l2", [0, 1.0]),
        ("linf, targeted", [0, 0.1]),
    ]
    assert found[0].points[0].robust == factory.report().clean


def test_command_of_an_evaluation():
    job = factory.report().job
    said = text.command(factory.report())
    assert said.startswith(
        f"sparring evaluate {job.model} {job.data} --threat linf:4/255 --threat linf:8/255 --threat l2:0.5 --attack noise "
    )
    assert "--attack pgd:steps=20,alpha=2/255 --attack pgd" in said
    assert said.endswith("--rows 1000 --seed 7")


def test_command_of_a_suite_and_of_a_craft():
    job = factory.report().job
    suite = job.model_copy(
        update={"attacks": (), "suite": "quick", "knowledge": frozenset({"white", "black"}), "device": "cpu", "timeout": 60}
    )
    said = text.command(factory.report().model_copy(update={"job": suite}))
    assert "--suite quick --knowledge black --knowledge white" in said
    assert said.endswith("--device cpu --timeout 60")
    craft = Craft(model=job.model, data=job.data, threat=Threat(norm="l2", eps=1, targeted=True), attack=PGD())
    said = text.command(factory.report().model_copy(update={"job": craft}))
    assert said.endswith("--threat l2:1:targeted --attack pgd --seed 0 -o crafted.npz")


def test_command_from_files_declares_what_the_uploads_declared():
    said = text.command_from_files(factory.report(name="my model.pt2"))
    assert said.startswith(
        "sparring evaluate 'my model.pt2' digits.npz --mean 0.1307 --std 0.3081 --bounds 0.0,1.0 --scale 0.00392156862745098 "
    )
