"""What can be asked for: attacks with the schema of their settings, suites, and the workers that would do it."""

from typing import get_args

from fastapi import APIRouter

from sparring.contract.attacks import ATTACKS, SUITES
from sparring.contract.resources import AttackInfo, SuiteInfo, WorkerInfo
from sparring.service.context import Ctx
from sparring.service.problems import problem
from sparring.storage import queue

router = APIRouter(tags=["catalogue"])


def _kind(attack: type) -> str:
    kind: str = get_args(attack.__annotations__["kind"])[0]
    return kind


_INFOS = {
    _kind(attack): AttackInfo(
        kind=_kind(attack),
        title=attack.title,
        summary=(attack.__doc__ or "").partition("\n")[0],
        paper=attack.paper,
        access=attack.access,
        knowledge=attack.knowledge,
        norms=attack.norms,
        settings=attack.model_json_schema(),
    )
    for attack in ATTACKS
}


@router.get("/attacks", summary="All attacks")
def list_attacks() -> list[AttackInfo]:
    """Every attack a job may name, with its paper and the JSON Schema of its settings."""
    return list(_INFOS.values())


@router.get("/attacks/{kind}", summary="One attack")
def get_attack(kind: str) -> AttackInfo:
    """One attack by its kind, such as `pgd`."""
    if kind not in _INFOS:
        raise problem(404, "not-found", f"There is no attack {kind!r}", hint=f"Known are {', '.join(_INFOS)}")
    return _INFOS[kind]


@router.get("/suites", summary="All suites")
def list_suites() -> list[SuiteInfo]:
    """The pinned lists of attacks, from the cheapest attack to the dearest."""
    return [
        SuiteInfo(name=name, version=version, attacks=tuple(attack.model_dump(mode="json") for attack in attacks))
        for name, (version, attacks) in SUITES.items()
    ]


@router.get("/workers", summary="Workers seen lately")
def list_workers(context: Ctx) -> list[WorkerInfo]:
    """Workers that sent a sign of life; 503 when the queue cannot be reached."""
    try:
        return queue.workers(context.redis)
    except queue.Unreachable as error:
        detail = "The queue cannot be reached, so nobody knows which workers live"
        raise problem(503, "queue-unavailable", detail, headers={"Retry-After": "2"}) from error
