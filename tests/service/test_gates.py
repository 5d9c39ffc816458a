"""Verdicts and baselines over HTTP."""

from typing import Any

import httpx2

from sparring.contract.early import packed
from sparring.contract.gates import BaselineLine, GateInfo
from sparring.contract.verdict import Baseline, BaselineKey, ThreatIdentity
from tests.reports import factory, verdicts

from .conftest import Served, other_project

POLICY = {
    "version": 1,
    "model": {"path": "net.pt2"},
    "data": {"path": "data.npz"},
    "threats": {"near": {"norm": "linf", "eps": "8/255"}},
    "rules": [{"id": "robust-near", "metric": "robust", "threat": "near", "min": 0.4}],
}
THREAT = ThreatIdentity(norm="linf", eps=8 / 255, targeted=False, bounds=(0, 1), scale=1.0, knowledge=("black", "white"))


def run(name: str = "net", **changes: Any) -> dict[str, Any]:
    return {"name": name, "policy": POLICY, "verdict": verdicts.verdict().model_dump(mode="json")} | changes


def baseline(right: int = 90, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"branch": "main", "model": "net", "data": "a" * 64, "threat": THREAT, "suite": "quick@1"}
    key = BaselineKey(**given | changes)
    stood = [row < right for row in range(100)]
    made = Baseline(key=key, sha256="b" * 64, rows=100, right=packed(stood), accepted=factory.WHEN)
    return made.model_dump(mode="json")


def accept(http: httpx2.Client, *each: dict[str, Any]) -> list[BaselineLine]:
    answer = http.put("/v1/baselines", json={"baselines": each})
    assert answer.status_code == 200, answer.text
    return [BaselineLine.model_validate(info) for info in answer.json()]


def test_a_verdict_is_kept_with_its_policy(served: Served) -> None:
    answer = served.http.post("/v1/gates", json=run())
    assert answer.status_code == 201, answer.text
    info = GateInfo.model_validate(answer.json())
    assert served.http.get(answer.headers["Location"]).json() == answer.json()
    assert info.verdict == verdicts.verdict()
    uploaded = POLICY | {"model": {"ref": "a" * 64, "name": "net"}, "data": {"ref": "b" * 64}}
    there = served.http.post("/v1/gates", json=run("uploaded", policy=uploaded)).json()
    again = served.http.post("/v1/gates", json={name: there[name] for name in ("name", "policy", "verdict")})
    assert (again.status_code, GateInfo.model_validate(again.json()).policy.model.ref) == (201, "a" * 64)
    assert served.http.post("/v1/gates", json=run("other")).status_code == 201
    assert [each["name"] for each in served.http.get("/v1/gates").json()["items"]] == ["other", "uploaded", "uploaded", "net"]
    (line,) = served.http.get("/v1/gates", params={"name": "net"}).json()["items"]
    assert (line["id"], line["exit_code"]) == (info.id, info.verdict.exit_code)
    first = served.http.get("/v1/gates", params={"limit": 1})
    assert 'rel="next"' in first.headers["Link"]


def test_another_one_of_the_same_key_takes_its_place_and_its_id(served: Served) -> None:
    (first, clean) = accept(served.http, baseline(90), baseline(95, threat=None, suite=""))
    (second,) = accept(served.http, baseline(80))
    assert first.id == second.id != clean.id
    assert served.http.get(f"/v1/baselines/{first.id}").json()["baseline"] == baseline(80)
    assert (second.score.count, second.score.total) == (80, 100)
    assert len(served.http.get("/v1/baselines").json()["items"]) == 2


def test_every_part_of_the_key_tells_baselines_apart(served: Served) -> None:
    parts: list[dict[str, Any]] = [
        {},
        {"branch": "dev"},
        {"model": "other"},
        {"data": "c" * 64},
        {"suite": "quick@2"},
        {"threat": THREAT.model_copy(update={"eps": 0.1})},
        {"threat": THREAT.model_copy(update={"bounds": "none"})},
        {"threat": THREAT.model_copy(update={"knowledge": ("white",)})},
    ]
    accept(served.http, *(baseline(**part) for part in parts))
    for part in parts:
        accept(served.http, baseline(**part))
    assert len(served.http.get("/v1/baselines").json()["items"]) == len(parts)
    for asked in ({"branch": "dev"}, {"model": "other"}, {"data": "c" * 64}):
        assert len(served.http.get("/v1/baselines", params=asked).json()["items"]) == 1


def test_what_is_no_verdict_or_no_baseline_is_refused(served: Served) -> None:
    for body in (run(policy=POLICY | {"rules": []}), run(verdict={}), run("<b>"), run(colour="red")):
        answer = served.http.post("/v1/gates", json=body)
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:sparring:problem:invalid-request")
    for each in ([], [baseline() | {"rows": 99_999}]):
        assert served.http.put("/v1/baselines", json={"baselines": each}).status_code == 422
    assert served.http.get("/v1/baselines").json()["items"] == []


def test_nobody_else_sees_or_changes_them(served: Served) -> None:
    gate = served.http.post("/v1/gates", json=run()).json()["id"]
    (mine,) = accept(served.http, baseline(90))
    with other_project(served) as stranger:
        for path in (f"/v1/gates/{gate}", f"/v1/baselines/{mine.id}"):
            assert stranger.get(path).status_code == 404
        (theirs,) = accept(stranger, baseline(10))
        assert theirs.id != mine.id
        assert stranger.get("/v1/gates").json()["items"] == []
    assert served.http.get(f"/v1/baselines/{mine.id}").json()["baseline"] == baseline(90)


def test_a_list_leaves_the_rows_out(served: Served) -> None:
    odd = baseline() | {"rows": 3, "right": "f"}
    (mine,) = accept(served.http, odd)
    (line,) = served.http.get("/v1/baselines").json()["items"]
    assert line == mine.model_dump(mode="json")
    assert set(line) == {"id", "created", "key", "sha256", "score"}
    assert line["score"] == {"count": 3, "total": 3}, "bits beyond the rows count for nothing"
    assert served.http.get(f"/v1/baselines/{mine.id}").json()["baseline"]["right"] == "f"
