import pytest

from sparring import parsing
from sparring.contract.attacks import APGD, ATTACKS, FAB, FGSM, PGD, Noise
from sparring.contract.corruptions import CORRUPTIONS
from sparring.contract.report import Report
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.contract.threat import Threat
from sparring.errors import UsageProblem
from sparring.reports import rerun, text
from tests.reports import factory


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("fgsm", FGSM()),
        ("noise:draws=3", Noise(draws=3)),
        ("pgd:steps=20,alpha=2/255", PGD(steps=20, alpha="2/255")),
        ("pgd: steps = 5 , start = clean , loss=dlr", PGD(steps=5, start="clean", loss="dlr")),
        ("pgd:labels=predicted,share=.5,alpha=1e-3", PGD(labels="predicted", share=0.5, alpha=0.001)),
        ("apgd-ce", APGD()),
        ("apgd-dlr", APGD(loss="dlr")),
        ("apgd-t", APGD(loss="dlr", targets=9)),
        ("apgd-t:steps=50,targets=3", APGD(loss="dlr", targets=3, steps=50)),
        ("fab-t:overshoot=21/20", FAB(targets=9, overshoot="21/20")),
        ("ufgsm", FGSM(labels="predicted")),
    ],
)
def test_attack(written, meant):
    assert parsing.attack(written) == meant


@pytest.mark.parametrize(
    ("written", "said", "hint"),
    [
        ("pgdd", "no attack 'pgdd'", "noise, fgsm, fgm"),
        ("apgd-x", "no attack 'apgd-x'", "for short apgd-ce, apgd-dlr, apgd-t, fab-t, ufgsm"),
        ("apgd-t:step=20", "apgd-t has no setting 'step'", "apgd-t knows steps, restarts, loss, targets, samples"),
        ("apgd:targets=9", "loss ce cannot aim at a class; give loss dlr or difference", ""),
        ("rfgsm:share=0", "share: must be greater than 0 (given '0')", ""),
        ("mifgsm:decay=-1", "decay: must be a number or a ratio", ""),
        ("pgd:step=20", "pgd has no setting 'step'", "steps, alpha, restarts, start, loss"),
        ("pgd:kind=fgsm", "no setting 'kind'", "steps"),
        ("pgd:steps", "'steps' is not of the form setting=value", "steps"),
        ("pgd:", "'' is not of the form", "steps"),
        ("pgd:steps=0", "steps: must be greater than or equal to 1 (given '0')", ""),
        ("pgd:steps=many", "steps: must be a valid integer", ""),
        ("pgd:alpha=2/0", "alpha: must be a finite number", ""),
        ("pgd:steps=1,steps=2", "steps is given twice", ""),
        ("pgd:loss=hinge", "loss: must be 'ce', 'margin', 'dlr', 'difference', 'scaled' or 'kl'", ""),
    ],
)
def test_attack_that_is_wrong_names_the_setting_and_the_known_ones(written, said, hint):
    with pytest.raises(UsageProblem) as caught:
        parsing.attack(written)
    assert said in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize("kind", ATTACKS)
def test_an_attack_with_every_setting_written_out_is_that_attack(kind):
    assert parsing.attack(text.attack_word(kind(), whole=True)) == kind()
    assert parsing.attack(text.attack_word(kind())) == kind()


def test_short_names_hide_no_attack():
    assert not set(parsing.ALIASES) & set(parsing.KINDS)
    assert all(text.attack_word(parsing.attack(alias)) in (means, "apgd") for alias, means in parsing.ALIASES.items())


def test_threats_of_eps_and_of_words():
    found = parsing.threats("l2", ["0.5", "1/2"], ["linf:8/255", "linf:0.1:targeted"], targeted=False)
    assert found == (
        Threat(norm="l2", eps=0.5),
        Threat(norm="l2", eps="1/2"),
        Threat(norm="linf", eps="8/255"),
        Threat(norm="linf", eps=0.1, targeted=True),
    )
    assert all(t.targeted for t in parsing.threats("linf", ["0.1"], ["l2:1"], targeted=True))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("linf", [], []), "How far may the attacker go"),
        (("l3", ["1"], []), "no such norm"),
        (("linf", ["-1"], []), "--eps -1: must be a number or a ratio"),
        (("linf", ["8/0"], []), "finite"),
        (("linf", [], ["8/255"]), "not of the form norm:eps"),
        (("linf", [], ["linf:8/255:both"]), "not of the form"),
        (("linf", [], ["l7:1"]), "norm: must be"),
    ],
)
def test_threats_that_are_wrong(given, said):
    with pytest.raises(UsageProblem, match=said):
        parsing.threats(*given, targeted=False)


@pytest.mark.parametrize("given", [{"mean": "0.5"}, {"std": "0.5"}])
def test_mean_and_std_go_together(given):
    with pytest.raises(UsageProblem, match="is given without --") as caught:
        parsing.spec(ModelSpec, **given)
    assert "--mean 0" in caught.value.hint


def test_spec_of_flags():
    assert parsing.spec(ModelSpec, arch=None, mean=None) is None
    assert parsing.spec(ModelSpec, mean="0.5,0.25", std="0.1") == ModelSpec(mean=(0.5, 0.25), std=(0.1,))
    assert parsing.spec(DataSpec, bounds="0,1") == DataSpec(bounds=(0, 1))
    assert parsing.spec(DataSpec, bounds="none") == DataSpec(bounds="none")
    for wrong in ({"bounds": "1,0"}, {"bounds": "0"}, {"scale": 0.0}, {"layout": "HWC"}):
        with pytest.raises(UsageProblem):
            parsing.spec(DataSpec, **wrong)


def test_reference_is_an_id_a_digest_or_a_file(tmp_path):
    file = tmp_path / "m.pt2"
    file.write_bytes(b"model")
    empty = tmp_path / "empty.pt2"
    empty.touch()
    ident = "mdl_" + "a" * 20
    assert parsing.reference(str(file), "mdl") is None
    assert parsing.reference(ident, "mdl") == ident
    assert parsing.reference("ab" * 32, "dat") == "ab" * 32
    for wrong, said in (
        ("none.pt2", "does not exist"),
        (str(tmp_path), "is a folder"),
        ("mdl_short", "does not exist"),
        ("/dev/null", "is no plain file"),
        (str(tmp_path / ("n" * 300)), "cannot be looked at: File name too long"),
        (str(empty), "is empty"),
    ):
        with pytest.raises(UsageProblem, match=said):
            parsing.reference(wrong, "mdl")
    with pytest.raises(UsageProblem, match="not the id of a dataset"):
        parsing.reference(ident, "dat")


def test_the_command_a_report_prints_means_the_job_it_came_from():
    report: Report = factory.report()
    words = rerun.command(report).split()
    given = [(words[at], words[at + 1]) for at in range(4, len(words), 2)]
    assert tuple(parsing.threat(value) for flag, value in given if flag == "--threat") == report.job.threats
    assert tuple(parsing.attack(value) for flag, value in given if flag == "--attack") == report.job.attacks


def test_corruptions_by_name_or_all():
    assert parsing.corruptions(()) == ()
    assert parsing.corruptions(("contrast", "shot_noise")) == ("contrast", "shot_noise")
    assert parsing.corruptions(("contrast", "all")) == CORRUPTIONS
    with pytest.raises(UsageProblem, match="--corruption fog: there is no such thing") as wrong:
        parsing.corruptions(("fog",))
    assert "gaussian_noise" in wrong.value.hint
