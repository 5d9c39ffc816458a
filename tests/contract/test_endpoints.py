from typing import Any

import pytest
from pydantic import ValidationError

from sparring.contract.attacks import PGD, Noise, Square
from sparring.contract.endpoints import ENDPOINT, Budget, filled, predictions
from sparring.contract.jobs import Craft, Evaluate, misfit
from sparring.contract.threat import Threat

URL = "https://models.example.com/predict"


def endpoint(**given: Any) -> Any:
    return ENDPOINT.validate_python({"kind": "endpoint", "url": URL} | given)


def test_a_template_is_filled_with_rows() -> None:
    rows, flat = [[1.0, 2.0], [3.0, 4.0]], [1.0, 2.0, 3.0, 4.0]
    template = {"a": ["{rows}", "{rows} "], "b": {"c": "{shape}"}, "d": None, "{rows}": 7}
    assert filled(template, rows, (2,), flat) == {"a": [rows, "{rows} "], "b": {"c": [2, 2]}, "d": None, "{rows}": 7}
    assert filled({"x": "{row}"}, rows[:1], (2,), flat[:2]) == {"x": [1.0, 2.0]}
    assert filled("{flat}", rows, (2,), flat) == flat


def test_v2_says_what_the_protocol_says() -> None:
    spec = endpoint(kind="v2", url="http://h:8000/", model="digits", version="2", input="x", output="y")
    assert spec.address == "http://h:8000/v2/models/digits/versions/2/infer"
    posted = {"inputs": [{"name": "x", "shape": [2, 1, 2], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}], "outputs": [{"name": "y"}]}
    assert filled(spec.request, [[[1.0, 2.0]], [[3.0, 4.0]]], (1, 2), [1.0, 2.0, 3.0, 4.0]) == posted
    answer = {"model_name": "digits", "outputs": [{"name": "y", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}]}
    assert predictions(answer, spec.response, 2, "scores") == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("answer", "pointer", "count", "gives", "found"),
    [
        ({"s": [[1, 2.5]]}, "/s", 1, "scores", [[1.0, 2.5]]),
        ([0.25, 0.75], "", 1, "probabilities", [[0.25, 0.75]]),
        ([[0, 1], [2, 3]], "", 2, "scores", [[0, 1], [2, 3]]),
        ({"a/b": [{"~": [3, 4]}]}, "/a~1b/0/~0", 1, "scores", [[3, 4]]),
        (7, "", 1, "labels", [[7]]),
        ([3, 1], "", 2, "labels", [[3], [1]]),
        ([[3], [1]], "", 2, "labels", [[3], [1]]),
    ],
)
def test_predictions_are_found(answer: Any, pointer: str, count: int, gives: Any, found: Any) -> None:
    assert predictions(answer, pointer, count, gives) == found


@pytest.mark.parametrize(
    ("answer", "pointer", "count", "gives", "said"),
    [
        ({"s": [[1, 2]]}, "/t", 1, "scores", "nothing at /t"),
        ([[1, 2]], "/1", 1, "scores", "nothing at /1"),
        ([[1, 2]], "/00", 1, "scores", "nothing at /00"),
        ("cat", "", 1, "labels", "not a list of finite numbers"),
        ([True, False], "", 1, "scores", "not a list of finite numbers"),
        ([[1, None]], "", 1, "scores", "not a list of finite numbers"),
        ([[1, 1e301]], "", 1, "scores", "not a list of finite numbers"),
        ([[1, 10**400]], "", 1, "scores", "not a list of finite numbers"),
        ([[1, 2], [3, 4]], "", 1, "scores", "2 predictions"),
        ([1, 2, 3], "", 2, "scores", "3 numbers"),
        ([0.7], "", 1, "scores", "fewer than two scores"),
        ([[]], "", 1, "scores", "fewer than two scores"),
        ([], "", 1, "scores", "0 numbers"),
        (1.5, "", 1, "labels", "whole number"),
        (-1, "", 1, "labels", "whole number"),
        ([1, 2], "", 1, "labels", "whole number"),
    ],
)
def test_what_is_no_prediction_is_told(answer: Any, pointer: str, count: int, gives: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        predictions(answer, pointer, count, gives)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": "ftp://h/"}, "must be an address"),
        ({"url": "https:///x"}, "must be an address"),
        ({"url": "https://h:99999/"}, "must be an address"),
        ({"url": "https://h:0/"}, "must be an address"),
        ({"url": "https://[::1/"}, "must be an address"),
        ({"url": "https://user:pw@h/"}, "user or a password"),
        ({"url": "https://@h/"}, "user or a password"),
        ({"url": "https://h/#x"}, "fragment"),
        ({"url": "https://h/a b"}, "printable ASCII"),
        ({"url": "https://h/?x=1&api_key=2"}, "'api_key' looks like a credential"),
        ({"headers": {"Authorization": "Bearer abc"}}, "secret:NAME"),
        ({"headers": {"X-Other": "Bearer abc"}}, "secret:NAME"),
        ({"headers": {"x-api-key": "abc"}}, "secret:NAME"),
        ({"headers": {"Cookie": "a=b"}}, "secret:NAME"),
        ({"headers": {"Authorization": "secret:a b"}}, "letters, digits and _"),
        ({"headers": {"Host": "other"}}, "set by the service"),
        ({"headers": {"transfer-encoding": "chunked"}}, "set by the service"),
        ({"headers": {"Proxy-Connection": "x"}}, "set by the service"),
        ({"headers": {"X": "a\r\nHost: b"}}, "pattern"),
        ({"headers": {"X y": "a"}}, "pattern"),
        ({"request": {"inputs": "rows"}}, "exactly one of"),
        ({"request": ["{rows}", "{flat}"]}, "exactly one of"),
        ({"request": {"x": "{row}"}, "batch": 2}, "carries one row"),
        ({"response": "scores"}, "pattern"),
        ({"response": "/a~2"}, "pattern"),
        ({"connections": 65}, "less than or equal to 64"),
        ({"rate": 0}, "greater than 0"),
        ({"gives": "gradients"}, "'scores', 'probabilities' or 'labels'"),
        ({"secret": "x"}, "not permitted"),
        ({"kind": "v2", "url": "http://h/?a=1", "model": "m", "input": "x"}, "without parameters"),
    ],
)
def test_what_is_no_endpoint_is_told(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        endpoint(**given)


def test_an_origin_has_one_spelling() -> None:
    urls = ("https://Models.Example.com/a", "https://models.example.com:443/b?c=d", "https://models.example.com./")
    assert {endpoint(url=url).origin for url in urls} == {"https://models.example.com"}
    assert endpoint(url="http://[::1]:9000/x").origin == "http://[::1]:9000"
    assert endpoint(url="http://[::1]/x").host == ("::1", 80)


def test_secrets_are_named() -> None:
    spec = endpoint(headers={"Authorization": "secret:TOKEN", "X-Key": "secret:K_2", "X-Team": "red"})
    assert spec.secrets == ("K_2", "TOKEN")


def test_a_budget_of_requests_allows_for_repeated_ones() -> None:
    assert Budget(asked=100).requests == 121
    assert Budget(asked=100, sent=100).requests == 100


def job(**given: Any) -> Evaluate:
    return Evaluate.model_validate({"model": "a" * 64, "data": "b" * 64, "threats": [{"norm": "linf", "eps": 0.1}]} | given)


def test_a_job_that_asks_for_what_an_endpoint_does_not_give() -> None:
    scores, labels = endpoint(), endpoint(gives="labels")
    assert misfit(job(attacks=[Noise(), Square()]), scores) is None
    where, why = misfit(job(attacks=[Noise(), PGD()]), scores) or ("", "")
    assert where == "/attacks/1"
    assert "pgd needs a gradient" in why
    assert "scores alone" in why
    assert "square" in why
    where, why = misfit(job(attacks=[Square()]), labels) or ("", "")
    assert where == "/attacks/0"
    assert "square needs a score" in why
    assert "labels alone" in why
    craft = Craft(model="a" * 64, data="b" * 64, threat=Threat(norm="linf", eps=0.1), attack=PGD())
    assert (misfit(craft, scores) or ("", ""))[0] == "/attack"


def test_a_suite_is_fit_if_something_of_it_is_left_for_every_threat() -> None:
    assert misfit(job(suite="quick"), endpoint(gives="labels")) is None, "the noise baseline needs only decisions"
    assert misfit(job(suite="standard"), endpoint()) is None, "Square is left"
    where, why = misfit(job(suite="standard"), endpoint(gives="labels")) or ("", "")
    assert where == "/threats/0"
    assert "every attack of the suite" in why
    assert (misfit(job(suite="quick", knowledge=["white"]), endpoint()) or ("", ""))[0] == "/threats/0"


def test_a_budget_is_for_endpoints() -> None:
    assert (misfit(job(budget={"asked": 5}), None) or ("", ""))[0] == "/budget"
    assert misfit(job(budget={"asked": 5}), endpoint()) is None
