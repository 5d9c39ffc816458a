from typing import get_args

import pytest
from pydantic import ValidationError

from sparring.contract.attacks import APGD, ATTACKS, FAB, FGM, FGSM, FMN, PGD, SUITES, Noise, Square
from sparring.contract.jobs import JOB, Craft, Evaluate
from sparring.contract.threat import Norm, Threat

MODEL, DATA = "mdl_" + "a" * 20, "dat_" + "b" * 20
LINF, L2, L0 = ({"norm": norm, "eps": 0.1} for norm in ("linf", "l2", "l0"))
JOB_ID = "job_" + "a" * 20
EVALUATE = {"kind": "evaluate", "model": MODEL, "data": DATA, "threats": [LINF]}
CRAFT = {"kind": "craft", "model": MODEL, "data": DATA, "threat": LINF, "attack": {"kind": "pgd"}}


def faults(job):
    with pytest.raises(ValidationError) as caught:
        JOB.validate_python(job)
    return [(".".join(str(part) for part in fault["loc"][1:]), fault["msg"]) for fault in caught.value.errors()]


def fault(job):
    (only,) = faults(job)
    return only


def test_a_job_of_few_words_is_filled_in():
    job = JOB.validate_python(EVALUATE)
    assert isinstance(job, Evaluate)
    assert job.threats == (Threat(norm="linf", eps=0.1),)
    assert (job.attacks, job.suite, job.rows, job.seed, job.timeout, job.device) == ((), "quick", None, 0, 21600, "auto")
    assert (job.precision, job.stop) == ("exact", "full")
    assert job.knowledge == {"white", "gray", "black"}
    assert isinstance(JOB.validate_python(CRAFT), Craft)


@pytest.mark.parametrize("job", [EVALUATE, CRAFT, EVALUATE | {"attacks": [{"kind": "pgd", "alpha": "2/255"}], "knowledge": ["white"]}])
def test_a_job_survives_the_wire(job):
    made = JOB.validate_python(job)
    assert JOB.validate_json(JOB.dump_json(made)) == made


def test_what_is_replayed_is_tried_first_where_the_attacker_may_ask():
    threat = Threat(norm="l1", eps=1)
    kinds = {
        name: [attack.kind for attack in JOB.validate_python(EVALUATE | {"attacks": [{"kind": "noise"}]} | more).against(threat)]
        for name, more in {"unsaid": {}, "none": {"replay": []}, "named": {"replay": [JOB_ID]}}.items()
    }
    assert kinds == {"unsaid": ["noise"], "none": ["noise"], "named": ["replay", "noise"]}
    white = JOB.validate_python(EVALUATE | {"knowledge": ["white"], "replay": [JOB_ID]})
    assert "replay" not in [attack.kind for attack in white.against(white.threats[0])]


def test_knowledge_is_written_in_one_order():
    one, other = (JOB.validate_python(EVALUATE | {"knowledge": list(order)}) for order in (("white", "black"), ("black", "white")))
    assert JOB.dump_json(one) == JOB.dump_json(other)


@pytest.mark.parametrize("job", [EVALUATE, CRAFT], ids=["evaluate", "craft"])
@pytest.mark.parametrize("field", ["rows", "seed", "timeout"])
def test_whole_numbers(job, field):
    assert getattr(JOB.validate_python(job | {field: "20"}), field) == 20
    for wrong in (True, False, 20.5, "20.5", "many", -1, [20]):
        where, _ = fault(job | {field: wrong})
        assert where == field
    assert "not true or false" in fault(job | {field: True})[1]


@pytest.mark.parametrize(
    ("changes", "where", "said"),
    [
        ({"threats": []}, "threats", "at least 1 item"),
        ({"threats": [{"norm": "l7", "eps": 1}]}, "threats.0.norm", "'linf', 'l2', 'l1' or 'l0'"),
        ({"threats": [{"norm": "linf", "eps": "8/0"}]}, "threats.0.eps", "divides by zero"),
        ({"threats": "linf"}, "threats", "valid list"),
        ({"threats": LINF}, "threats", "valid list"),
        ({"threats": [{"norm": "linf", "eps": at} for at in range(101)]}, "threats", "at most 100 items"),
        ({"attacks": [{"kind": "nuke"}]}, "attacks.0", "'noise', 'fgsm', 'fgm'"),
        ({"attacks": [{"steps": 5}]}, "attacks.0", "give one of noise, fgsm, fgm"),
        ({"attacks": [{"kind": "apgd", "targets": 9}]}, "attacks.0.apgd", "targets: loss ce cannot aim at a class; give loss dlr"),
        ({"attacks": {"kind": "pgd"}}, "attacks", "valid list"),
        ({"attacks": [{"kind": "pgd", "steps": True}]}, "attacks.0.pgd.steps", "not true or false"),
        ({"knowledge": []}, "knowledge", "at least 1 item"),
        ({"knowledge": ["grey"]}, "knowledge.0", "'white', 'gray' or 'black'"),
        ({"knowledge": "white"}, "knowledge", "valid list"),
        ({"suite": "slow"}, "suite", "'quick'"),
        ({"precision": "half"}, "precision", "'exact' or 'fast'"),
        ({"cascade": "perhaps"}, "cascade", "valid boolean"),
        ({"stop": "early"}, "stop", "'full'"),
        ({"stop": {"kind": "early", "questions": []}}, "stop.early.questions", "at least 1 item"),
        ({"stop": {"questions": [{"id": "a"}]}}, "stop.early.questions.0", "give either min or max_drop"),
        ({"stop": {"questions": [{"id": "a", "max_drop": 0.1}]}}, "stop.early.questions.0", "max_drop and before go together"),
        ({"stop": {"questions": [{"id": "a", "min": 0.1}] * 2}}, "stop.early", "a is asked twice"),
        ({"replay": ["dat_" + "0" * 20]}, "replay.0", "job_"),
        ({"replay": JOB_ID}, "replay", "valid list"),
        ({"model": "../../etc/passwd"}, "model", "mdl|dat"),
        ({"device": "tpu"}, "device", "'auto', 'cpu' or 'gpu'"),
        ({"colour": "red"}, "colour", "not permitted"),
    ],
)
def test_one_mistake_is_one_fault_in_its_place(changes, where, said):
    found, message = fault(EVALUATE | changes)
    assert found == where
    assert said in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attacks": [{"kind": "fgsm"}], "suite": "quick"}, "attacks and suite exclude each other"),
        ({"threats": [LINF, L2, {"norm": "linf", "eps": "1/10"}]}, "threats.2: the same threat is listed twice"),
        (
            {"threats": [LINF, L2], "attacks": [{"kind": "pgd"}, {"kind": "fgsm"}]},
            "attacks.1: fgsm is not defined for norm l2 (it knows linf)",
        ),
        ({"attacks": [{"kind": "pgd"}], "knowledge": ["black"]}, "attacks.0: pgd needs white-box knowledge"),
        (
            {"attacks": [{"kind": "replay", "jobs": [JOB_ID]}]},
            "attacks.0: replay is not listed: name the evaluations in",
        ),
        ({"stop": {"questions": [{"id": "a", "min": 0.1, "threat": 1}]}}, "stop.questions.0.threat: there is no threat 1"),
        ({"threats": [LINF, L0]}, "threats.1: no attack of the suite is defined for norm l0 with this knowledge (it covers linf, l2, l1)"),
        (
            {"threats": [LINF, LINF | {"targeted": True}], "attacks": [{"kind": "pgd"}, {"kind": "fab"}]},
            "attacks.1: fab cannot aim at a class; leave it out, or ask for an untargeted threat",
        ),
        ({"knowledge": ["gray"]}, "threats.0: no attack of the suite is defined for norm linf with this knowledge (it covers nothing)"),
    ],
)
def test_what_does_not_fit_together_is_named(changes, said):
    assert said in fault(EVALUATE | changes)[1]


def test_the_same_radius_aimed_differently_is_another_threat():
    assert len(JOB.validate_python(EVALUATE | {"threats": [LINF, LINF | {"targeted": True}, L2]}).threats) == 3


def test_a_craft_job_is_held_to_the_norms_of_its_attack():
    assert "attack: fgsm is not defined for norm l2" in fault(CRAFT | {"threat": L2, "attack": {"kind": "fgsm"}})[1]
    assert fault({name: given for name, given in CRAFT.items() if name != "attack"})[0] == "attack"


@pytest.mark.parametrize(("job", "said"), [({}, "evaluate, craft"), ({"kind": "destroy"}, "'evaluate', 'craft'"), (7, "object")])
def test_a_job_of_no_kind_is_told_the_kinds(job, said):
    with pytest.raises(ValidationError, match=said) as caught:
        JOB.validate_python(job)
    assert caught.value.errors()[0]["loc"] == ()


@pytest.mark.parametrize("kind", ATTACKS)
def test_every_attack_of_the_contract_may_be_asked_for_in_its_norms_and_in_no_other(kind):
    given = {"attacks": [{"kind": kind.model_fields["kind"].default}]}
    for norm in get_args(Norm):
        job = EVALUATE | given | {"threats": [{"norm": norm, "eps": 0.1}]}
        if norm in kind.norms:
            assert JOB.validate_python(job).attacks == (kind(),)
        else:
            assert f"is not defined for norm {norm}" in fault(job)[1]


def test_only_some_suites_are_cascades_and_the_job_has_the_last_word():
    def cascaded(**given):
        return JOB.validate_python(EVALUATE | given).cascaded

    assert [cascaded(suite=suite) for suite in SUITES] == [False, True, True, False, False]
    assert not cascaded()
    assert not cascaded(suite="standard", cascade=False)
    assert cascaded(suite="quick", cascade=True)
    assert cascaded(attacks=[{"kind": "pgd"}], cascade="true")


def test_against_a_threat_run_the_attacks_or_what_the_suite_has_for_it():
    linf, l2 = Threat(norm="linf", eps=0.1), Threat(norm="l2", eps=0.1)
    by_suite = JOB.validate_python(EVALUATE | {"threats": [LINF, L2]})
    assert by_suite.against(linf) == (Noise(), FGSM(), PGD(steps=10))
    assert by_suite.against(l2) == (Noise(), FGM(), PGD(steps=10))
    standard = JOB.validate_python(EVALUATE | {"suite": "standard"})
    assert standard.against(linf) == (APGD(), APGD(loss="dlr", targets=9), FAB(targets=9), Square())
    assert standard.against(Threat(norm="l1", eps=1)) == standard.against(linf)
    assert standard.against(Threat(norm="linf", eps=0.1, targeted=True)) == (APGD(), APGD(loss="dlr", targets=9), Square())
    assert JOB.validate_python(EVALUATE | {"suite": "thorough", "threats": [L0]}).against(Threat(norm="l0", eps=3)) == (FMN(steps=500),)
    assert JOB.validate_python(EVALUATE | {"knowledge": ["black"]}).against(linf) == (Noise(),)
    by_list = JOB.validate_python(EVALUATE | {"attacks": [{"kind": "pgd"}, {"kind": "fgsm"}]})
    assert by_list.against(linf) == (PGD(), FGSM())
    crafted = JOB.validate_python(CRAFT)
    assert crafted.threats == (linf,)
    assert crafted.against(linf) == (PGD(),)


def test_corruptions_are_known_and_listed_once():
    assert JOB.validate_python(EVALUATE | {"corruptions": ["contrast", "pixelate"]}).corruptions == ("contrast", "pixelate")
    assert "corruptions.1: contrast is listed twice" in fault(EVALUATE | {"corruptions": ["contrast", "contrast"]})[1]
    assert faults(EVALUATE | {"corruptions": ["fog"]})[0][0] == "corruptions.0"
    assert faults(CRAFT | {"corruptions": ["contrast"]})[0][0] == "corruptions"
