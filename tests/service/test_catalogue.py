from sparring.contract.attacks import ATTACKS, CASCADES, PURPOSES, SUITES, describe
from sparring.contract.defenses import DEFENSES
from sparring.contract.defenses import describe as defenses

from .conftest import Served


def test_every_attack_is_described(shared: Served) -> None:
    listed = shared.http.get("/v1/attacks").json()
    assert len(listed) == len(ATTACKS)
    for one, spec in zip(listed, ATTACKS, strict=True):
        assert one["kind"] == spec.model_fields["kind"].default
        assert one["summary"].endswith(".")
        assert one["description"] == [*describe.description(spec), *describe.notes(spec)]
        for name in ("title", "paper", "access", "knowledge", "bounded", "targetable"):
            assert one[name] == getattr(spec, name)
        assert one["norms"] == list(spec.norms)
        assert one["settings"] == spec.model_json_schema()
        assert shared.http.get(f"/v1/attacks/{one['kind']}").json() == one
    unknown = shared.http.get("/v1/attacks/nuke")
    assert unknown.status_code == 404
    assert "pgd" in unknown.json()["hint"]


def test_every_defense_is_described(shared: Served) -> None:
    listed = shared.http.get("/v1/defenses").json()
    assert [one["kind"] for one in listed] == [spec.model_fields["kind"].default for spec in DEFENSES]
    for one, spec in zip(listed, DEFENSES, strict=True):
        assert one["description"] == [*defenses.description(spec), *defenses.notes(spec)]
        for name in ("title", "paper", "family", "labelled", "unlabelled"):
            assert one[name] == getattr(spec, name)
        assert one["gradients"] == spec().gradients
        assert one["settings"] == spec.model_json_schema()
        assert shared.http.get(f"/v1/defenses/{one['kind']}").json() == one
    unknown = shared.http.get("/v1/defenses/nuke")
    assert unknown.status_code == 404
    assert "trades" in unknown.json()["hint"]


def test_suites_say_their_version_and_every_setting(shared: Served) -> None:
    listed = shared.http.get("/v1/suites").json()
    assert [suite["name"] for suite in listed] == list(SUITES)
    for suite, (name, (version, attacks)) in zip(listed, SUITES.items(), strict=True):
        assert (suite["version"], suite["purpose"], suite["cascade"]) == (version, PURPOSES[name], name in CASCADES)
        assert suite["attacks"] == [attack.model_dump(mode="json") for attack in attacks]


def test_workers_are_unknown_while_the_queue_is_away(shared: Served) -> None:
    answer = shared.http.get("/v1/workers")
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:sparring:problem:queue-unavailable"
