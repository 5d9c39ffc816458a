import json
import math

import pytest
from pydantic import ValidationError

from sparring.contract.specs import DataSpec, ModelSpec
from sparring.contract.threat import Threat


def faults(kind, **given):
    with pytest.raises(ValidationError) as caught:
        kind(**given)
    return {".".join(str(part) for part in fault["loc"]): fault["msg"] for fault in caught.value.errors()}


def test_a_threat_keeps_what_was_written_and_knows_its_radius():
    threat = Threat(norm="linf", eps="8/255")
    assert (threat.eps, threat.radius, threat.targeted) == ("8/255", 8 / 255, False)
    assert json.loads(threat.model_dump_json())["eps"] == "8/255"
    assert Threat.model_validate_json(threat.model_dump_json()) == threat


def test_a_faulty_threat_names_each_field():
    assert list(faults(Threat, norm="l7", eps=-1, colour="red")) == ["norm", "eps", "colour"]
    assert "'linf', 'l2', 'l1' or 'l0'" in faults(Threat, norm="l7", eps=1)["norm"]


def test_what_travels_does_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        Threat(norm="l2", eps=1).eps = 2


@pytest.mark.parametrize(
    ("written", "meant"),
    [("0,1", (0.0, 1.0)), (" -1 , 1 ", (-1.0, 1.0)), ([0, 255], (0.0, 255.0)), (["0", "1"], (0.0, 1.0)), ("none", "none"), (None, None)],
)
def test_bounds(written, meant):
    assert DataSpec(bounds=written).bounds == meant


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("0,,1", "two finite numbers"),
        ("0,1,", "two finite numbers"),
        (",0,1", "two finite numbers"),
        ("0", "two finite numbers"),
        ("", "two finite numbers"),
        ("low,high", "two finite numbers"),
        ([0, 1, 2], "two finite numbers"),
        ([0, math.inf], "two finite numbers"),
        ([math.nan, 1], "two finite numbers"),
        ("-inf,inf", "two finite numbers"),
        ([0, 1e39], "two finite numbers"),
        ([False, True], "two finite numbers"),
        (1, "two finite numbers"),
        ([1, 0], "1.0 is not below 0.0"),
        ("0.5,0.5", "0.5 is not below 0.5"),
    ],
)
def test_bounds_that_are_none(written, said):
    found = faults(DataSpec, bounds=written)
    assert list(found) == ["bounds"]
    assert said in found["bounds"]


def test_channels():
    assert ModelSpec(mean="0.5, 0.25", std=[0.1]) == ModelSpec(mean=(0.5, 0.25), std=(0.1,))
    assert ModelSpec(mean="0.5").mean == (0.5,)
    assert ModelSpec(mean=[-1, 0]).mean == (-1.0, 0.0)


@pytest.mark.parametrize("field", ["mean", "std"])
@pytest.mark.parametrize(
    ("written", "where", "said"),
    [
        ("0.5,,0.5", "", "a number is missing"),
        ("0.5,", "", "a number is missing"),
        ("", "", "a number is missing"),
        ([], "", "at least 1 item"),
        (0.5, "", "valid list"),
        ("0.5,x", ".1", "valid number"),
        (["x"], ".0", "valid number"),
        ([True], ".0", "not true or false"),
        ([math.inf], ".0", "finite"),
        ([1, math.nan], ".1", "finite"),
        ([1e39], ".0", "between 1e-30 and 1e+30"),
    ],
)
def test_channels_that_are_wrong_report_the_one_true_fault(field, written, where, said):
    found = faults(ModelSpec, **{field: written})
    assert list(found) == [field + where]
    assert said in found[field + where]


def test_what_divides_or_scales_is_above_zero_in_float32():
    assert "greater than 0" in faults(ModelSpec, std=[0])["std.0"]
    assert "between 1e-30" in faults(ModelSpec, std=[1e-50])["std.0"]
    assert "greater than 0" in faults(DataSpec, scale=0)["scale"]
    assert "not true or false" in faults(DataSpec, scale=True)["scale"]
    assert DataSpec(scale="0.5").scale == 0.5
    assert ModelSpec(mean=[0]).mean == (0.0,)


def test_mean_and_std_fit_each_other():
    assert "mean has 2 values but std has 3" in faults(ModelSpec, mean="1,2", std="1,2,3")["std"]
    assert ModelSpec(mean="1", std="1,2,3")
    assert ModelSpec(mean="1,2,3", std="1")


def test_classes_are_a_whole_number():
    assert ModelSpec(classes="10").classes == 10
    for wrong in (True, 1, 2.5, "many"):
        assert list(faults(ModelSpec, classes=wrong)) == ["classes"]


def test_as_many_channels_as_an_address_can_carry():
    assert len(ModelSpec(mean=[0.1] * 900).mean) == 900
    assert "at most 900 items" in faults(ModelSpec, mean=[0.1] * 901)["mean"]
