"""What the figures of a retrain job say, told from figures that are made up."""

import pytest

from sparring.contract.attacks import FGSM, PGD, Transfer
from sparring.contract.defenses import VAT, EnsembleTraining, PGDTraining
from sparring.contract.report import Score
from sparring.contract.retrain import Retrain
from sparring.contract.retrained import Epoch, Paired
from sparring.workers.retraining import verdict
from tests.reports import factory, retrained

JOB = Retrain(model="0" * 64, data="1" * 64, defenses=(PGDTraining(), VAT()))
ALIKE = Paired(both=600, lost=20, gained=22, neither=358)
APART = Paired(both=600, lost=5, gained=60, neither=335)


def codes(result) -> list[str]:
    return [finding.code for finding in verdict.findings(result)]


def advice(*each, beside=None) -> str:
    beside = beside or {result.name: [APART] * 3 for result in each}
    return " ".join(verdict.advice(factory.report(), each, each[0], beside))


def epochs(*rates: tuple[float, float]) -> tuple[Epoch, ...]:
    """Accuracy under the single step and under PGD, in each epoch."""
    scores = [[Score(count=round(200 * rate), total=200) for rate in pair] for pair in rates]
    return tuple(Epoch(epoch=at, single=single, robust=robust, clean=single) for at, (single, robust) in enumerate(scores, 1))


def test_the_defense_with_the_best_validation_rows_is_handed_on():
    """Under PGD first, then clean, then the cheapest, then the first; the test rows have no say."""
    assert verdict.choose(JOB, [(150, 180), (151, 100)]) == 1
    assert verdict.choose(JOB, [(150, 180), (150, 181)]) == 1
    assert verdict.choose(JOB, [(150, 181), (150, 180)]) == 0
    assert verdict.choose(JOB, [(150, 180), (150, 180)]) == 1, "vat costs fewer gradients"
    twice = JOB.model_copy(update={"defenses": (VAT(), VAT(eps=1.0))})
    assert verdict.choose(twice, [(-1, -1), (-1, -1)]) == 0


def test_the_paired_test_of_the_clean_accuracy_warns_of_a_loss_that_is_no_chance():
    cost = retrained.result("pgd", clean=retrained.paired(factory.CLEAN, 5, 30))
    assert codes(cost) == ["clean_accuracy_lost"]
    (finding,) = verdict.findings(cost)
    assert "30 rows were lost and 5 gained (-2.5 points" in finding.message
    assert codes(retrained.result("pgd", clean=retrained.paired(factory.CLEAN, 25, 30))) == [], "as likely as not"
    assert codes(retrained.result("pgd", clean=retrained.paired(factory.CLEAN, 30, 5))) == [], "a gain"


def test_catastrophic_overfitting_is_pgd_falling_while_the_single_step_holds():
    fell = retrained.result("pgd", curve=epochs((0.5, 0.45), (0.6, 0.5), (0.9, 0.1)), epoch=2)
    (finding,) = verdict.findings(fell)
    assert finding.code == "catastrophic_overfitting"
    assert "from 50.0 % to 10.0 %" in finding.message
    assert finding.evidence == {"epoch": 3, "best_epoch": 2}


@pytest.mark.parametrize(
    "rates",
    [
        pytest.param([(0.6, 0.5), (0.2, 0.1)], id="both fall: it has unlearnt"),
        pytest.param([(0.6, 0.5), (0.9, 0.4)], id="a little"),
        pytest.param([(0.9, 0.1), (0.6, 0.5)], id="it recovers"),
        pytest.param([(0.6, 0.5)], id="one epoch"),
        pytest.param([], id="none"),
    ],
)
def test_other_courses_are_no_catastrophic_overfitting(rates):
    assert codes(retrained.result("pgd", curve=epochs(*rates))) == []


def test_a_model_that_withstands_the_single_step_alone_is_told_of():
    attacks = (FGSM(), PGD(steps=20))
    threats = (factory.threat_result(factory.THREATS[0], attacks, worst=100),)
    fooled = threats[0].each[0].model_copy(update={"robust": Score(count=800, total=1000)})
    threats = (threats[0].model_copy(update={"each": (fooled, threats[0].each[1])}),)
    result = retrained.result("pgd")
    result = result.model_copy(update={"after": result.after.model_copy(update={"threats": threats})})
    (finding,) = verdict.findings(result)
    assert finding.code == "single_step_alone"
    assert "80.0 %" in finding.message


@pytest.mark.parametrize("end", ["diverged", "overfitting"])
def test_a_training_that_ended_early_says_so_and_which_weights_are_handed_on(end):
    (finding,) = verdict.findings(retrained.result("pgd", end=end, reason="why", epoch=3))
    assert finding.code == end
    assert "why" in finding.message
    assert "epoch 3" in finding.hint


def test_the_advice_is_to_use_what_is_measurably_better():
    assert advice(retrained.result("pgd")).startswith("Use the model that pgd gave: 82.0 % under linf 4/255 instead of 64.0 %")
    nothing = retrained.result("pgd", robust=(ALIKE,) * 3)
    assert advice(nothing).startswith("No defense made the model measurably more robust on these 1000 test rows")


def test_the_advice_names_what_is_cheaper_and_no_worse():
    both = retrained.result("pgd"), retrained.result("vat")
    assert "vat cannot be told from pgd" in advice(*both, beside={"pgd": [ALIKE] * 3, "vat": [ALIKE] * 3})
    assert "cannot be told" not in advice(*both, beside={"pgd": [ALIKE] * 3, "vat": [APART, ALIKE, ALIKE]})


def test_the_advice_is_to_go_on_while_it_rises_and_to_stop_once_it_falls():
    rising = epochs(*((0.5 + step / 20, 0.4 + step / 20) for step in range(8)))
    assert "still rising" in advice(retrained.result("pgd", curve=rising, epochs=8, epoch=8))
    falling = epochs(*((0.6, 0.5 - step / 100) for step in range(12)))
    assert "at its best after epoch 1 of 12" in advice(retrained.result("pgd", curve=falling, epochs=12, epoch=1))
    level = epochs(*((0.6, 0.5) for _ in range(8)))
    assert "epochs" not in advice(retrained.result("pgd", curve=level, epochs=8, epoch=8))


def test_defenses_that_see_no_attack_are_told_of_those_that_do():
    assert "pgd and trades are dearer" in advice(retrained.result("vat"))
    assert "dearer" not in advice(retrained.result("pgd"))


def test_an_ensemble_is_to_be_measured_by_what_it_guards_against():
    models = ("mdl_" + "a" * 20,)
    against = retrained.result("pgd", defense=EnsembleTraining(models=models))
    assert "evaluate the new version with transfer:models=" in advice(against)
    assert "transfer" not in advice(retrained.result("pgd"))
    before = factory.report()
    first, *others = before.threats
    shown = first.each[0].model_copy(update={"attack": Transfer(models=models)})
    tried = before.model_copy(update={"threats": (first.model_copy(update={"each": (shown,)}), *others)})
    assert "transfer" not in " ".join(verdict.advice(tried, [against], against, {"pgd": [APART] * 3}))


def test_rows_the_model_may_have_learnt_from_are_told_of_unless_test_rows_were_given():
    told = [finding.code for finding in verdict.warnings(JOB, factory.report(), ())]
    assert told == ["test_rows_seen"]
    for changes in ({"test": "2" * 64}, {"scratch": True}):
        assert not list(verdict.warnings(JOB.model_copy(update=changes), factory.report(), ()))


def test_rows_are_paired_by_whether_each_model_was_right():
    found = verdict.paired([True, True, False, False, True], [True, False, True, False, True])
    assert found == Paired(both=2, lost=1, gained=1, neither=1)


def test_mcnemar_is_the_sign_test_of_the_rows_that_differ():
    assert Paired(both=9, lost=0, gained=5, neither=1).p_value == pytest.approx(2 / 2**5)
    assert Paired(both=0, lost=1, gained=6, neither=0).p_value == pytest.approx(2 * (1 + 7) / 2**7)
    assert Paired(both=0, lost=4, gained=4, neither=0).p_value == 1.0
    assert Paired(both=9, lost=0, gained=0, neither=1).p_value == 1.0
