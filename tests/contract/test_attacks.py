from typing import get_args

import pytest
from pydantic import ValidationError

from sparring.contract.attacks import (
    APGD,
    ATTACKS,
    BIM,
    CASCADES,
    DIFGSM,
    FAB,
    FGM,
    FGSM,
    FMN,
    MIFGSM,
    NES,
    NIFGSM,
    PGD,
    PURPOSES,
    SIFGSM,
    SPSA,
    SUITES,
    TIFGSM,
    Boundary,
    HopSkipJump,
    Loss,
    Noise,
    RayS,
    SimBA,
    Square,
    Substitute,
    SuiteName,
    Transfer,
    describe,
    names,
)
from sparring.contract.threat import Norm

KINDS = "noise fgsm fgm rfgsm ascent bim mifgsm difgsm nifgsm sifgsm tifgsm pgd apgd vat deepfool ddn fmn cw cwlinf ead jsma fab uap"
KINDS += " transfer square sparse_rs nes spsa simba boundary hopskipjump rays substitute"


def faults(kind, **given):
    with pytest.raises(ValidationError) as caught:
        kind(**given)
    return {".".join(str(part) for part in fault["loc"]): fault["msg"] for fault in caught.value.errors()}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_says_what_it_is(attack):
    assert attack.title
    assert attack.paper
    assert describe.summary(attack).endswith(".")
    assert set(attack.norms) <= set(get_args(Norm))
    assert attack.norms
    assert attack().kind == describe.kind(attack)
    # Who knows nothing of the weights cannot ask for their gradient.
    assert attack.access != "gradient" or attack.knowledge != "black"


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_setting_says_what_it_is_what_it_may_be_and_what_it_is_unless_given(attack):
    found = describe.settings(attack)
    assert [setting.name for setting in found] == [name for name in attack.model_fields if name != "kind"]
    for setting in found:
        assert setting.meaning.endswith("."), setting
        assert setting.bounds
        given = {} if setting.default in ("not set", "none") else {setting.name: setting.default}
        assert attack(**given) == attack()


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_setting_that_is_wrong_is_named(attack):
    for setting in describe.settings(attack):
        for wrong in ("x", -1) if setting.bounds == "true or false" else ("x", -1, True):
            assert {place.partition(".")[0] for place in faults(attack, **{setting.name: wrong})} == {setting.name}


def test_bounds_in_words():
    said = {setting.name: setting.bounds for attack in (PGD, APGD, MIFGSM) for setting in describe.settings(attack)}
    assert said["steps"] == "integer, 1 to 100,000"
    assert said["targets"] == "integer, 0 to 1,000"
    assert said["share"] == "number above 0, up to 1"
    assert said["alpha"] == "number or ratio above 0"
    assert said["decay"] == "number or ratio, 0 or more"
    assert said["start"] == "one of random, clean"


def test_what_is_true_beyond_the_settings_is_said():
    assert describe.notes(PGD) == ()
    assert [note.split(":")[0] for note in describe.notes(FAB)] == [
        "It looks for the smallest change",
        "It cannot be asked to reach a class.",
    ]
    assert describe.description(APGD)[1].startswith("With `targets` it is APGD-T")


def test_every_loss_is_explained():
    assert set(describe.LOSSES) == set(get_args(Loss))


@pytest.mark.parametrize(("kind", "field"), [(PGD, "steps"), (PGD, "restarts"), (Noise, "draws"), (Square, "queries")])
def test_counts_of_an_attack(kind, field):
    assert getattr(kind(**{field: "20"}), field) == 20
    for wrong in (True, False, 20.5, "20.5", 0, -1, 10**9, None):
        assert list(faults(kind, **{field: wrong})) == [field]


@pytest.mark.parametrize("kind", [NES, SPSA, SimBA, Boundary, HopSkipJump, RayS])
def test_a_number_of_queries_leaves_room_for_a_step_and_the_judge(kind):
    assert kind(queries=10).queries == 10
    for wrong in (9, 0, 10_000_001):
        assert list(faults(kind, queries=wrong)) == ["queries"]


def test_who_sees_no_gradient_is_black_box_and_who_walks_has_no_eps():
    assert {kind.access for kind in (NES, SPSA, SimBA, Square)} == {"score"}
    assert {kind.access for kind in (Boundary, HopSkipJump, RayS)} == {"decision"}
    for kind in (NES, SPSA, SimBA, Square, Boundary, HopSkipJump, RayS):
        assert kind.knowledge == "black"
        assert kind.bounded == (kind.access == "score")


def test_probes_and_steps_follow_eps_unless_given():
    assert (NES().probe_size(0.05), NES().step_size(0.05)) == pytest.approx((0.001, 0.01))
    assert (SPSA().probe_size(0.1), SPSA().step_size(0.1)) == pytest.approx((0.01, 0.05))
    for kind in (NES, SPSA):
        assert (kind(sigma="1/255").probe_size(9), kind(alpha="2/255").step_size(9)) == (1 / 255, 2 / 255)


def test_a_step_is_derived_unless_given_and_there_may_be_none():
    assert PGD(steps=10).step_size(0.4) == pytest.approx(0.1)
    assert PGD(alpha="2/255").step_size(0.4) == 2 / 255
    assert "greater than 0" in faults(PGD, alpha=0)["alpha"]
    for kind in (BIM, MIFGSM, DIFGSM, NIFGSM, SIFGSM, TIFGSM):
        assert kind(steps=4).step_size(0.4) == pytest.approx(0.1)
        assert kind(alpha="2/255").step_size(0.4) == 2 / 255
    assert APGD().step_size(0.4) is None


def test_only_some_losses_can_aim():
    assert APGD(loss="dlr", targets=9).targets == 9
    assert APGD(loss="difference", targets=1).targets == 1
    for loss in ("ce", "margin", "scaled", "kl"):
        assert "cannot aim at a class" in faults(APGD, loss=loss, targets=9)[""]


def test_names_are_short_and_unique():
    assert names((PGD(), FGSM(), PGD(steps=5), Noise(), PGD(loss="dlr"))) == ("pgd", "fgsm", "pgd-2", "noise", "pgd-3")
    assert names(()) == ()


def test_kinds_and_suites():
    assert [describe.kind(attack) for attack in ATTACKS] == KINDS.split()
    assert set(SUITES) == set(PURPOSES) == set(get_args(SuiteName))
    assert set(SUITES) >= CASCADES
    pinned = {
        "quick@1": (Noise(), FGSM(), FGM(), PGD(steps=10)),
        "standard@1": (APGD(), APGD(loss="dlr", targets=9), FAB(targets=9), Square()),
        "thorough@1": (
            PGD(steps=50, restarts=5, loss="margin"),
            APGD(restarts=5),
            APGD(loss="dlr", restarts=5),
            APGD(loss="scaled", restarts=2),
            APGD(loss="dlr", targets=9, restarts=2),
            FAB(targets=9, restarts=2),
            FMN(steps=500),
            Square(queries=10_000, restarts=2),
        ),
        "levels@1": (FGSM(), FGM(), PGD(steps=50), Transfer(), Substitute(), Square(queries=1000), Noise()),
        "defended@1": (Noise(), FGSM(), FGM(), PGD(steps=20), APGD(loss="dlr", steps=50), Square(queries=500)),
    }
    assert dict(SUITES.values()) == pinned, "a pinned suite changes only with its version"


def test_the_standard_suite_is_what_papers_call_standard():
    """100 steps, 9 targets, 5000 queries, one restart: the defaults count as much as what is written out."""
    first, aimed, boundary, square = SUITES["standard"][1]
    assert (first.loss, first.steps, first.restarts, first.targets) == ("ce", 100, 1, 0)
    assert (aimed.loss, aimed.steps, aimed.restarts, aimed.targets) == ("dlr", 100, 1, 9)
    assert (boundary.steps, boundary.restarts, boundary.targets) == (100, 1, 9)
    assert (square.queries, square.restarts, square.share) == (5000, 1, 0.8)
