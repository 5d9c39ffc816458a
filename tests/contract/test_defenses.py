import pytest
from pydantic import TypeAdapter, ValidationError

from sparring.contract.defenses import (
    DEFENSES,
    WRAPPERS,
    Adversarial,
    DefenseSpec,
    FastTraining,
    Noise,
    PGDTraining,
    SmoothingCertificate,
    Training,
    WrapperSpec,
    describe,
)

KINDS = (
    "plain noise mixup dropout label_smoothing weight_penalty gradient_penalty lds vat imsat "
    "fgsm fast pgd free yopo freelb trades mart alp friendly ensemble"
)
EVERY = (*DEFENSES, *WRAPPERS, Training, SmoothingCertificate)


def test_the_union_lists_every_defense():
    assert " ".join(describe.kind(kind) for kind in DEFENSES) == KINDS


@pytest.mark.parametrize("defense", DEFENSES)
def test_a_defense_says_what_it_is(defense):
    assert defense.title
    assert defense.paper
    assert defense.family in describe.FAMILIES
    assert all(part.endswith(".") for part in (*describe.description(defense), *describe.notes(defense)))
    assert defense().gradients >= 1
    if defense.neutral is not None:
        neutral = defense(**defense.neutral)
        assert neutral.kind == defense().kind


@pytest.mark.parametrize("model", EVERY, ids=lambda model: model.__name__)
def test_every_setting_says_what_it_is_what_it_may_be_and_what_it_is_unless_given(model):
    found = describe.settings(model)
    assert [setting.name for setting in found] == [name for name in model.model_fields if name != "kind"]
    for setting in found:
        assert setting.meaning.endswith("."), setting
        assert setting.bounds
        assert setting.default


@pytest.mark.parametrize("union", [DefenseSpec, WrapperSpec], ids=["defense", "wrapper"])
def test_specs_travel_as_json(union):
    adapter = TypeAdapter(union)
    for kind in DEFENSES if union is DefenseSpec else WRAPPERS:
        spec = kind()
        assert adapter.validate_json(spec.model_dump_json()) == spec
    with pytest.raises(ValidationError, match="the kind is missing: give one of"):
        adapter.validate_python({"eps": 1})


def test_the_radius_is_that_of_the_data_unless_it_is_given():
    assert PGDTraining().radius(1.0) == 8 / 255
    assert PGDTraining(norm="l2").radius(2.0) == 256 / 255
    assert PGDTraining(eps="4/255").radius(2.0) == 4 / 255
    assert FastTraining().step_size(0.1) == 0.125
    assert PGDTraining(alpha=0.5).step_size(0.1) == 0.5
    assert {kind().kind for kind in DEFENSES if issubclass(kind, Adversarial)} == set(KINDS.split()[10:])


def test_a_probability_stays_below_one():
    with pytest.raises(ValidationError, match="must be below 1"):
        Noise(distribution="bernoulli", size=1)
    assert Noise(distribution="uniform", size=1).size == 1


def test_the_rate_is_that_of_the_optimizer_unless_it_is_given():
    assert [Training(optimizer=name).peak for name in ("sgd", "adam", "adamw")] == [0.01, 0.001, 0.001]
    assert Training(rate="1/8").peak == 0.125
