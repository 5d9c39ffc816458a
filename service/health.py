"""Is the process up, can it serve, and what is it: for load balancers, supervisors and people."""

import platform
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

import sparring
from sparring.service.context import Context, Ctx
from sparring.storage.database import reading

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Check(BaseModel):
    """One thing the service leans on."""

    ok: bool
    detail: str = ""


class Readiness(BaseModel):
    """`degraded`: jobs are accepted and kept, but do not move just now. `unavailable`: nothing can be accepted."""

    status: Literal["ready", "degraded", "unavailable"]
    checks: dict[Literal["database", "queue", "workers"], Check]


class Version(BaseModel):
    """What runs here."""

    sparring: str
    python: str
    api: str = "v1"


def _database(context: Context) -> Check:
    try:
        with reading(context.engine) as connection:
            connection.execute(text("select 1"))
    except SQLAlchemyError:
        return Check(ok=False, detail="the records cannot be reached")
    return Check(ok=True)


def _queue(context: Context) -> tuple[Check, Check]:
    alive = context.liveness.queues()
    if alive is None:
        return Check(ok=False, detail="the queue cannot be reached; accepted jobs wait in the records"), Check(ok=False, detail="unknown")
    return Check(ok=True), Check(ok=bool(alive), detail=", ".join(sorted(alive)) or "no live worker")


@router.get("/healthz", summary="Is the process up?")
def healthz() -> Health:
    """Answers as long as the process serves."""
    return Health()


@router.get("/readyz", summary="Can it serve?", responses={503: {"model": Readiness, "description": "Nothing can be accepted"}})
def readyz(context: Ctx, response: Response) -> Readiness:
    """Checks the records (503 without them), the queue and the workers (degraded without them)."""
    database = _database(context)
    in_queue, workers = _queue(context)
    if not database.ok:
        response.status_code = 503
    status: Literal["ready", "degraded", "unavailable"] = (
        "unavailable" if not database.ok else "ready" if in_queue.ok and workers.ok else "degraded"
    )
    return Readiness(status=status, checks={"database": database, "queue": in_queue, "workers": workers})


@router.get("/version", summary="What runs here?")
def version() -> Version:
    """Versions of Sparring, Python and the API."""
    return Version(sparring=sparring.__version__, python=platform.python_version())
