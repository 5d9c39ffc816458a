import json
from pathlib import Path
from typing import Any

import pytest

from sparring.contract.endpoints import ENDPOINT, Budget
from sparring.storage.errors import Forbidden
from sparring.storage.grants import check, granted

SECRET = "Bearer s3cr3t-t0ken"


@pytest.fixture
def listed(tmp_path: Path):
    def write(*grants: dict[str, Any], project: str = "default") -> Path:
        path = tmp_path / "endpoints.json"
        path.write_text(json.dumps({project: grants}))
        return path

    return write


def endpoint(url: str = "https://models.example.com/predict", **given: Any) -> Any:
    return ENDPOINT.validate_python({"kind": "endpoint", "url": url} | given)


def forbidden(path: Path, spec: Any, project: str = "default") -> Forbidden:
    with pytest.raises(Forbidden) as error:
        granted(path, project, spec)
    assert error.value.hint
    assert str(path) not in f"{error.value} {error.value.hint}"
    return error.value


def test_nothing_may_be_asked_until_it_is_listed(listed, tmp_path: Path) -> None:
    assert forbidden(tmp_path / "absent.json", endpoint()).code == "not_allowed"
    path = listed({"origin": "https://models.example.com"})
    assert granted(path, "default", endpoint()).origin == "https://models.example.com"
    assert forbidden(path, endpoint(), project="other").code == "not_allowed"


@pytest.mark.parametrize(
    "url",
    [
        "http://models.example.com/",
        "https://models.example.com:8443/",
        "https://example.com/",
        "https://models.example.com.evil.org/",
        "https://evil.org/models.example.com",
        "https://evil.org/?https://models.example.com",
    ],
)
def test_only_the_very_origin_is_allowed(listed, url: str) -> None:
    assert forbidden(listed({"origin": "https://models.example.com"}), endpoint(url)).code == "not_allowed"


def test_a_private_address_is_allowed_by_its_own_name_and_a_host_by_its_network(listed) -> None:
    path = listed({"origin": "http://127.0.0.1:9000"}, {"origin": "http://[::1]:9000"}, {"origin": "http://model.internal:9000"})
    check(path, "default", endpoint("http://127.0.0.1:9000/x"))
    check(path, "default", endpoint("http://[::1]:9000/x"))
    with pytest.raises(Forbidden, match="no public address"):
        check(path, "default", endpoint("http://model.internal:9000/x"), lambda host, port: ["10.1.2.3"])
    path = listed({"origin": "http://model.internal:9000", "addresses": ["10.0.0.0/8"]})
    check(path, "default", endpoint("http://model.internal:9000/x"), lambda host, port: ["10.1.2.3"])


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "[::ffff:127.0.0.1]"])
def test_another_spelling_of_an_address_allows_nothing(listed, host: str) -> None:
    path = listed({"origin": f"http://{host}:9000"})
    if host.startswith("["):  # this one is an address, and names itself
        check(path, "default", endpoint(f"http://{host}:9000/"))
        return
    with pytest.raises(Forbidden) as error:
        check(path, "default", endpoint(f"http://{host}:9000/"))
    assert error.value.code == "address_forbidden"


def test_a_name_that_cannot_be_looked_up_here_is_left_to_the_worker(listed) -> None:
    def away(host: str, port: int) -> list[str]:
        raise OSError("no name server")

    check(listed({"origin": "https://models.example.com"}), "default", endpoint(), away)


def test_a_secret_belongs_to_one_origin(listed) -> None:
    path = listed(
        {"origin": "https://models.example.com", "secrets": {"TOKEN": SECRET}}, {"origin": "https://other.example.com", "secrets": {}}
    )
    spec = endpoint(headers={"Authorization": "secret:TOKEN", "X-Team": "red"})
    headers = granted(path, "default", spec).headers(spec)
    assert {name: value.get_secret_value() for name, value in headers.items()} == {"Authorization": SECRET, "X-Team": "red"}
    assert SECRET not in repr(granted(path, "default", spec))
    other = endpoint("https://other.example.com/", headers={"Authorization": "secret:TOKEN"})
    assert forbidden(path, other).code == "secret_missing"


def test_what_is_granted_is_a_ceiling(listed) -> None:
    grant = granted(listed({"origin": "https://models.example.com", "asked": 500, "sent": 550}), "default", endpoint())
    assert grant.budget(Budget(asked=1000)) == Budget(asked=500, sent=550)
    assert grant.budget(Budget(asked=10, sent=11)) == Budget(asked=10, sent=11)
    free = granted(listed({"origin": "https://models.example.com"}), "default", endpoint())
    assert free.budget(None) == Budget(asked=100_000, sent=120_001)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid at its start"),
        ('{"default": [{"origin": "models.example.com"}]}', "default.0.origin"),
        ('{"default": [{"origin": "https://h/path"}]}', "more than scheme, host and port"),
        ('{"default": [{"origin": "https://h", "secrets": {"T": ["' + SECRET + '"]}}]}', "default.0.T"),
    ],
)
def test_a_list_that_is_none_is_told_without_what_it_holds(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "endpoints.json"
    path.write_text(text)
    error = forbidden(path, endpoint())
    assert said in str(error)
    assert SECRET not in f"{error} {error.hint}"
