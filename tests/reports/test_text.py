import pytest

from sparring.contract.attacks import APGD, ATTACKS, BIM, FAB, FGSM, PGD, VAT, Transfer
from sparring.contract.corruptions import CORRUPTIONS
from sparring.contract.jobs import Craft
from sparring.contract.report import CurvePoint, Score
from sparring.contract.threat import Threat
from sparring.reports import rerun, text
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


def test_settings_tell_what_is_not_at_its_default_and_the_step_that_follows():
    threat = Threat(norm="linf", eps=0.1)
    assert text.settings_text(FGSM(), threat) == "all at default"
    assert text.settings_text(APGD(loss="dlr", targets=9), threat) == "loss dlr, targets 9, rest at default"
    assert text.settings_text(PGD(steps=10, alpha=0.01, restarts=2), threat) == "steps 10, alpha 0.01, restarts 2, rest at default"
    assert text.settings_text(PGD(), threat) == "all at default; step size 0.00625"
    assert text.settings_text(BIM(steps=5), threat) == "steps 5, rest at default; step size 0.02"


@pytest.mark.parametrize("kind", ATTACKS)
def test_an_attack_in_a_word_has_every_setting_if_asked(kind):
    assert text.attack_word(kind()) == kind().kind
    told = text.attack_word(kind(), whole=True).partition(":")[2]
    outer = {part.partition("=")[0] for part in told.split(",")}
    assert {name for name in outer if "." not in name} == {name for name, value in kind() if name != "kind" and value not in (None, ())}


def test_an_attack_within_another_is_told_with_its_settings():
    spec = Transfer(attack=PGD(steps=50), architectures=("mlp", "cnn"), ensemble=True)
    assert text.attack_word(spec) == "transfer:attack=pgd,attack.steps=50,architectures=mlp+cnn,ensemble=true"
    assert "attack.alpha" not in text.attack_word(spec, whole=True)
    assert "attack.restarts=1" in text.attack_word(spec, whole=True)


def result(**changes):
    return factory.threat_result(Threat(norm="linf", eps=0.1), (changes.pop("attack", PGD()),)).each[0].model_copy(update=changes)


def test_what_counts_do_not_say_is_said_in_words():
    assert text.remarks(result()) == ()
    assert text.remarks(result(carried=1)) == ("1 row fell at a smaller eps and was not tried again",)
    assert text.remarks(result(carried=1234)) == ("1,234 rows fell at a smaller eps and were not tried again",)
    assert text.remarks(result(attack=VAT(), smoothness=0.01234567)) == ("mean KL divergence from the clean prediction 0.01235 nats",)
    assert text.remarks(result(attack=FAB())) == ()
    assert text.remarks(result(attack=FAB(), queries=0)) == ("its one run serves every eps and is counted under the smallest",)
    assert text.remarks(result(attack=FAB(), queries=0, entered=0)) == ()


def test_a_cascade_is_known_as_one():
    assert not text.cascaded(factory.report())
    assert text.cascaded(factory.cascade())
    job = factory.report().job
    craft = Craft(model=job.model, data=job.data, threat=Threat(norm="l2", eps=1), attack=PGD())
    assert not text.cascaded(factory.report().model_copy(update={"job": craft}))


def test_curves_of_smallest_changes_stand_with_their_norm_and_aim():
    found = (factory.minimal("fab"), factory.minimal("fmn", "l2"), factory.minimal("fmn", targeted=True), factory.minimal("fmn"))
    linf, l2 = text.curves(factory.report(minimal=found))
    assert [m.name for m in linf.minimal] == ["fab", "fmn"]
    assert not any(m.targeted for m in linf.minimal)
    assert l2.minimal == (found[1],)


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
    said = rerun.command(factory.report())
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
    said = rerun.command(factory.report().model_copy(update={"job": suite}))
    assert "--suite quick --knowledge black --knowledge white" in said
    assert "cascade" not in said
    assert "precision" not in said
    assert said.endswith("--device cpu --timeout 60")
    craft = Craft(model=job.model, data=job.data, threat=Threat(norm="l2", eps=1, targeted=True), attack=PGD())
    said = rerun.command(factory.report().model_copy(update={"job": craft}))
    assert said.endswith("--threat l2:1:targeted --attack pgd --seed 0 -o crafted.npz")


@pytest.mark.parametrize(("cascade", "flag"), [(True, "--cascade"), (False, "--no-cascade")])
def test_command_of_a_cascade_and_of_fast_gradients(cascade, flag):
    job = factory.report().job.model_copy(update={"cascade": cascade, "precision": "fast"})
    assert f" {flag} --precision fast " in rerun.command(factory.report().model_copy(update={"job": job}))


def test_command_from_files_declares_what_the_uploads_declared():
    said = rerun.command_from_files(factory.report(name="my model.pt2"))
    assert said.startswith(
        "sparring evaluate 'my model.pt2' digits.npz --mean 0.1307 --std 0.3081 --bounds 0.0,1.0 --scale 0.00392156862745098 "
    )


def test_corruptions_have_a_rate_for_each_severity_and_a_mean():
    head, rows = text.corruption_table(factory.corrupted("shot_noise", "contrast"))
    assert head == ("Corruption", "Severity 1", "Severity 2", "Severity 3", "Severity 4", "Severity 5", "Mean")
    assert rows[0] == ("shot noise", "90.0 %", "80.0 %", "70.0 %", "60.0 %", "50.0 %", "70.0 %")
    assert rows[-1] == ("mean of all", "", "", "", "", "", "70.0 %")


@pytest.mark.parametrize(
    ("names", "flags"), [(("contrast", "pixelate"), " --corruption contrast --corruption pixelate "), (CORRUPTIONS, " --corruption all ")]
)
def test_command_of_an_evaluation_with_corruptions(names, flags):
    assert flags in rerun.command(factory.corrupted(*names))


def test_queries_are_told_of_attacks_that_have_a_number_of_them():
    (asked,) = text.asking(factory.asked())
    assert asked.threat == factory.THREATS[0]
    assert [each.name for each in asked.each] == ["square"]
    assert text.asking(factory.report()) == ()
    square, pgd = factory.asked().threats[0].each
    for each in (square, pgd):
        assert "half of the rows it broke took 120 queries at most, 90 % of them 2,400" in text.remarks(each)
