from sparring.contract.attacks import ATTACKS, SUITES

from .conftest import Served


def test_every_attack_is_described(shared: Served) -> None:
    listed = shared.http.get("/v1/attacks").json()
    assert len(listed) == len(ATTACKS)
    for one, spec in zip(listed, ATTACKS, strict=True):
        assert one["kind"] == spec.model_fields["kind"].default
        assert one["summary"].endswith(".")
        assert one["settings"] == spec.model_json_schema()
        assert shared.http.get(f"/v1/attacks/{one['kind']}").json() == one
    unknown = shared.http.get("/v1/attacks/nuke")
    assert unknown.status_code == 404
    assert "pgd" in unknown.json()["hint"]


def test_suites_say_their_version_and_every_setting(shared: Served) -> None:
    (suite,) = shared.http.get("/v1/suites").json()
    version, attacks = SUITES["quick"]
    assert (suite["name"], suite["version"]) == ("quick", version)
    assert suite["attacks"] == [attack.model_dump(mode="json") for attack in attacks]


def test_workers_are_unknown_while_the_queue_is_away(shared: Served) -> None:
    answer = shared.http.get("/v1/workers")
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:sparring:problem:queue-unavailable"
