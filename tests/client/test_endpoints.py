"""Endpoints by the command line and by the SDK, against a real server."""

import json
from typing import Any

import pytest

from sparring import parsing
from sparring.contract.endpoints import HttpEndpoint, OpenInference
from sparring.contract.specs import ModelReading
from sparring.errors import ApiError, UsageProblem

ORIGIN = "http://127.0.0.1:9000"


@pytest.fixture
def allowed(served):
    served.settings.grants.write_text(json.dumps({"default": [{"origin": ORIGIN, "secrets": {"TOKEN": "Bearer s3cr3t"}}]}))


def test_an_endpoint_is_registered_by_the_sdk(allowed, client):
    given = HttpEndpoint(url=f"{ORIGIN}/predict", response="/scores", headers={"Authorization": "secret:TOKEN"})
    info = client.models.register(given, "mine", ModelReading(classes=10, mean=(0.5,), std=(0.5,)))
    assert (info.name, info.format, info.spec.classes, info.spec.mean, info.spec.endpoint) == ("mine", "endpoint", 10, (0.5,), given)
    assert client.models.get(info.id) == info
    with pytest.raises(ApiError, match="not among the endpoints"):
        client.models.register(given.model_copy(update={"url": "http://127.0.0.1:9001/"}))


def test_an_endpoint_is_registered_by_the_command_line(allowed, sparring):
    flags = ("--header", "Authorization=secret:TOKEN", "--gives", "probabilities", "--batch", 8, "--rate", 50, "--shape", "64")
    done = sparring("models", "add-endpoint", f"{ORIGIN}/p", "--request", '{"x": "{flat}"}', "--response", "/y", *flags, "--json")
    assert done.returncode == 0, done.stderr
    spec = json.loads(done.stdout)["spec"]["endpoint"]
    assert (spec["request"], spec["response"], spec["gives"], spec["batch"], spec["rate"], spec["shape"]) == (
        {"x": "{flat}"},
        "/y",
        "probabilities",
        8,
        50.0,
        [64],
    )
    done = sparring("models", "add-endpoint", ORIGIN, "--v2", "digits", "--input", "x", "--gives", "labels", "--classes", 10)
    assert done.returncode == 0, done.stderr
    assert "endpoint" in done.stdout
    assert len(sparring("models", "list", "--json").stdout.split('"mdl_')) == 3


def test_what_the_operator_has_not_allowed_is_told_with_what_to_do(served, sparring):
    done = sparring("models", "add-endpoint", f"{ORIGIN}/p")
    assert done.returncode == 2
    assert "not among the endpoints" in done.stderr
    assert "operator" in done.stderr


def endpoint(**given: Any) -> Any:
    common = {"url": f"{ORIGIN}/p"} | {name: given[name] for name in ("shape", "batch", "gives") if name in given}
    json_alone = {name: given.get(name) for name in ("request", "response")}
    v2_alone = {name: given.get(name) for name in ("model", "version", "input", "output")}
    return parsing.endpoint(common, json_alone, v2_alone, given.get("header", ()))


def test_flags_make_one_kind_or_the_other():
    assert endpoint() == HttpEndpoint(url=f"{ORIGIN}/p")
    assert endpoint(model="m", input="x", shape="3,32,32") == OpenInference(url=f"{ORIGIN}/p", model="m", input="x", shape=(3, 32, 32))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"input": "x"}, "--input needs --v2"),
        ({"model": "m", "input": "x", "response": "/a"}, "--response cannot stand beside --v2"),
        ({"request": "{rows}"}, "--request is not JSON"),
        ({"request": "{}"}, "exactly one of"),
        ({"header": ["Authorization: x"]}, "not of the form name=value"),
        ({"header": ["Authorization=Bearer s3cr3t"]}, "write secret:NAME"),
        ({"shape": "a"}, "--shape"),
        ({"model": "m"}, "--input"),
        ({"gives": "logits"}, "--gives"),
    ],
)
def test_flags_that_are_wrong_are_named(given, said):
    with pytest.raises(UsageProblem, match=said) as error:
        endpoint(**given)
    assert "s3cr3t" not in f"{error.value} {error.value.hint}"


def test_a_budget_is_one_or_both():
    assert parsing.budget(None, None) is None
    assert (parsing.budget(5, None) or 0) == parsing.Budget(asked=5)
    assert (parsing.budget(None, 7) or 0) == parsing.Budget(sent=7)
    with pytest.raises(UsageProblem, match="--asked"):
        parsing.budget(0, None)
