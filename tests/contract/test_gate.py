import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sparring.contract.early import packed
from sparring.contract.gate import Policy, Settings
from sparring.contract.jobs import Evaluate
from sparring.contract.verdict import Baseline, BaselineKey, Baselines, ThreatIdentity, exit_code, suite_version, threat_identity
from tests.reports import factory, verdicts

STEADY = settings(max_examples=60, deadline=None, database=None, derandomize=True)
SHA = "ab" * 32


def policy(**changes) -> dict:
    given = {
        "version": 1,
        "model": {"path": "model.pt2"},
        "data": {"path": "data.npz"},
        "threats": {"near": {"norm": "linf", "eps": "8/255"}},
        "rules": [{"id": "robust", "metric": "robust", "threat": "near", "min": 0.4}],
    }
    return given | changes


def waiver(**changes) -> dict:
    return {"id": "w", "scope": ["robust"], "reason": "r", "approved_by": "a", "expires": "2030-01-31"} | changes


def faults(**changes) -> str:
    with pytest.raises(ValidationError) as caught:
        Policy.model_validate(policy(**changes))
    return "; ".join(f"{'.'.join(map(str, fault['loc']))} {fault['msg']}" for fault in caught.value.errors())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "version"),
        ({"colour": "red"}, "colour"),
        ({"model": {}}, "either path (a file) or ref"),
        ({"model": {"path": "a", "ref": SHA}}, "either path (a file) or ref"),
        ({"model": {"ref": SHA, "arch": "mlp"}}, "arch can be declared of a file only"),
        ({"data": {"ref": SHA, "bounds": "0,1"}}, "bounds can be declared of a file only"),
        ({"threats": {}}, "threats"),
        ({"threats": {"a b": {"norm": "linf", "eps": 1}}}, "pattern"),
        ({"rules": []}, "rules"),
        ({"rules": [{"id": "a", "metric": "robust", "threat": "far", "min": 0.1}]}, "rules.0.threat: there is no threat 'far'"),
        ({"rules": [{"id": "a", "metric": "clean"}]}, "either min or max_drop"),
        ({"rules": [{"id": "a", "metric": "clean", "min": 0.1, "max_drop": 0.1}]}, "either min or max_drop"),
        ({"rules": [{"id": "a", "metric": "clean", "min": 1.1}]}, "min"),
        ({"rules": [{"id": "a", "metric": "clean", "min": True}]}, "not true or false"),
        ({"rules": [{"id": "a", "metric": "time"}]}, "max"),
        ({"rules": [{"id": "a", "metric": "certified", "threat": "near", "min": 0.1}]}, "skip_proved: true"),
        ({"rules": [{"id": "a", "metric": "clean", "min": 0.1}] * 2}, "rules.1.id: a is taken"),
        ({"rules": [{"id": "a;b", "metric": "clean", "min": 0.1}]}, "pattern"),
        ({"waivers": [waiver(scope=["other"])]}, "waivers.0.scope: there is no rule 'other'"),
        ({"waivers": [waiver(expires="never")]}, "expires"),
        ({"waivers": [{**waiver(), "approved_by": ""}]}, "approved_by"),
        ({"waivers": [waiver(floor=0.1)], "rules": [{"id": "robust", "metric": "clean", "max_drop": 0.1}]}, "waivers.0.floor"),
        ({"evaluate": {"attacks": [{"kind": "fgm"}]}}, "evaluate: attacks.0: fgm is not defined for norm linf"),
        ({"evaluate": {"suite": "quick", "attacks": [{"kind": "pgd"}]}}, "exclude each other"),
        ({"evaluate": {"stop": "soon"}}, "stop"),
        ({"evaluate": {"stop": "early"}, "rules": [{"id": "a", "metric": "time", "max": 9}]}, "evaluate.stop: no rule on clean or robust"),
    ],
)
def test_what_is_wrong_is_refused_and_named(changes: dict, said: str):
    assert said in faults(**changes)


def test_the_job_is_the_evaluation_with_its_own_defaults():
    job = Policy.model_validate(policy()).job(SHA, SHA)
    assert job == Evaluate(model=SHA, data=SHA, threats=[{"norm": "linf", "eps": "8/255"}], replay=())
    job = Policy.model_validate(policy(evaluate={"suite": "standard", "rows": 5, "seed": 3})).job(SHA, SHA)
    assert (job.suite, job.rows, job.seed, job.cascaded) == ("standard", 5, 3, True)


def test_every_setting_is_one_of_the_evaluation():
    assert set(Settings.model_fields) <= set(Evaluate.model_fields)
    assert all(field.default is None for field in Settings.model_fields.values())


def test_a_policy_survives_its_own_json():
    made = Policy.model_validate(policy(waivers=[waiver(floor=0.2)]))
    assert Policy.model_validate_json(made.model_dump_json()) == made


@STEADY
@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_a_baseline_keeps_every_row(stood: list[bool]):
    key = BaselineKey(branch="main", model="m", data=SHA, threat=None, suite="")
    made = Baseline(key=key, sha256=SHA, rows=len(stood), right=packed(stood), accepted=factory.WHEN)
    assert list(Baseline.model_validate_json(made.model_dump_json()).stood) == stood


def test_a_baseline_cut_short_is_refused():
    key = BaselineKey(branch="main", model="m", data=SHA, threat=None, suite="")
    with pytest.raises(ValidationError, match="9 rows need 3"):
        Baseline(key=key, sha256=SHA, rows=9, right="ff", accepted=factory.WHEN)


def test_baselines_are_found_by_every_part_of_their_key_and_replaced_one_by_one():
    report = factory.report()
    key = BaselineKey(branch="main", model="m", data=SHA, threat=threat_identity(report, factory.THREATS[0]), suite="quick@1")
    first, second = (Baseline(key=key, sha256=SHA, rows=4, right=bits, accepted=factory.WHEN) for bits in ("f", "0"))
    kept = Baselines().replaced([first])
    assert kept.get(key) == first
    other = threat_identity(report, factory.THREATS[1])
    for changed in ({"branch": "dev"}, {"model": "n"}, {"data": "cd" * 32}, {"threat": other}, {"threat": None}, {"suite": "quick@2"}):
        assert kept.get(key.model_copy(update=changed)) is None
    again = kept.replaced([second, first.model_copy(update={"key": key.model_copy(update={"branch": "dev"})})])
    assert again.get(key) == second
    assert len(again.entries) == 2


def test_identities_name_their_difference():
    one = ThreatIdentity(norm="linf", eps=0.1, targeted=False, bounds=(0, 1), scale=1.0, knowledge=("black", "white"))
    assert one.difference(one) == ""
    other = one.model_copy(update={"eps": 0.2, "bounds": "none"})
    assert one.difference(other) == "eps 0.1 against 0.2, bounds 0, 1 against none"


def test_eps_written_in_two_ways_is_one_identity():
    report = factory.report()
    ratio = report.threats[1].threat
    assert ratio.eps == "8/255"
    assert threat_identity(report, ratio) == threat_identity(report, ratio.model_copy(update={"eps": 8 / 255}))


def test_the_suite_s_version_tells_attacks_apart():
    def version(**given) -> str:
        return suite_version(Evaluate(model=SHA, data=SHA, threats=[{"norm": "linf", "eps": 0.1}], **given))

    assert version() == "quick@1"
    assert version(precision="fast") == "quick@1+fast"
    pgd, more = version(attacks=[{"kind": "pgd"}]), version(attacks=[{"kind": "pgd", "steps": 41}])
    assert pgd.startswith("attacks@")
    assert pgd != more
    assert pgd == version(attacks=[{"kind": "pgd"}], seed=5, rows=7)


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ((verdicts.rule(),), 0),
        ((verdicts.rule(status="violated"), verdicts.rule(status="inconclusive")), 1),
        ((verdicts.rule(status="inconclusive"), verdicts.rule()), 5),
        ((verdicts.rule(status="violated", level="warning"), verdicts.rule()), 0),
        ((verdicts.rule(status="violated", waiver=verdicts.waiver()),), 0),
        ((verdicts.rule(status="not_applied"), verdicts.rule()), 0),
        ((verdicts.rule(status="not_applied"),), 3),
        ((), 3),
    ],
)
def test_exit_codes(rules, code: int):
    assert exit_code(rules) == code
