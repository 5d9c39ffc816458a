"""What can be asked for: attacks and defenses with the schema of their settings, suites, and the workers that would do it."""

from fastapi import APIRouter

from sparring.contract.catalogue import ATTACK_INFOS, DEFENSE_INFOS, SUITE_INFOS
from sparring.contract.resources import AttackInfo, DefenseInfo, SuiteInfo, WorkerInfo
from sparring.service.context import Ctx
from sparring.service.problems import problem
from sparring.storage import queue

router = APIRouter(tags=["catalogue"])


@router.get("/attacks", summary="All attacks")
def list_attacks() -> list[AttackInfo]:
    """Every attack a job may name, with its paper and the JSON Schema of its settings."""
    return list(ATTACK_INFOS.values())


@router.get("/attacks/{kind}", summary="One attack")
def get_attack(kind: str) -> AttackInfo:
    """One attack by its kind, such as `pgd`."""
    if kind not in ATTACK_INFOS:
        raise problem(404, "not-found", f"There is no attack {kind!r}", hint=f"Known are {', '.join(ATTACK_INFOS)}")
    return ATTACK_INFOS[kind]


@router.get("/defenses", summary="All defenses")
def list_defenses() -> list[DefenseInfo]:
    """Every defense a retrain job may name, with its paper and the JSON Schema of its settings."""
    return list(DEFENSE_INFOS.values())


@router.get("/defenses/{kind}", summary="One defense")
def get_defense(kind: str) -> DefenseInfo:
    """One defense by its kind, such as `trades`."""
    if kind not in DEFENSE_INFOS:
        raise problem(404, "not-found", f"There is no defense {kind!r}", hint=f"Known are {', '.join(DEFENSE_INFOS)}")
    return DEFENSE_INFOS[kind]


@router.get("/suites", summary="All suites")
def list_suites() -> list[SuiteInfo]:
    """The pinned lists of attacks, each in the order in which it is run."""
    return list(SUITE_INFOS.values())


@router.get("/workers", summary="Workers seen lately")
def list_workers(context: Ctx) -> list[WorkerInfo]:
    """Workers that sent a sign of life; 503 when the queue cannot be reached."""
    try:
        return queue.workers(context.redis)
    except queue.Unreachable as error:
        detail = "The queue cannot be reached, so nobody knows which workers live"
        raise problem(503, "queue-unavailable", detail, headers={"Retry-After": "2"}) from error
