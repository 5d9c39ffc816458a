"""What can be asked for: attacks with the schema of their settings, suites, and the workers that would do it."""

from fastapi import APIRouter

from sparring.contract.attacks import ATTACKS, CASCADES, PURPOSES, SUITES, describe
from sparring.contract.resources import AttackInfo, SuiteInfo, WorkerInfo
from sparring.service.context import Ctx
from sparring.service.problems import problem
from sparring.storage import queue

router = APIRouter(tags=["catalogue"])


_INFOS = {
    describe.kind(attack): AttackInfo(
        kind=describe.kind(attack),
        title=attack.title,
        summary=describe.summary(attack),
        description=(*describe.description(attack), *describe.notes(attack)),
        paper=attack.paper,
        access=attack.access,
        knowledge=attack.knowledge,
        norms=attack.norms,
        bounded=attack.bounded,
        targetable=attack.targetable,
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
    """The pinned lists of attacks, each in the order in which it is run."""
    return [
        SuiteInfo(
            name=name,
            version=version,
            purpose=PURPOSES[name],
            cascade=name in CASCADES,
            attacks=tuple(attack.model_dump(mode="json") for attack in attacks),
        )
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
