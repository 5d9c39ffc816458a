"""The start page, the way in, and the way out."""

import re
from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from sparring.service import jobs as api
from sparring.service.web.fields import Filled
from sparring.service.web.middleware import LONGEST
from sparring.service.web.names import Names
from sparring.service.web.view import Seen, Visitor
from sparring.storage import jobs, keys, uploads

router = APIRouter()

SHOWN = 8
_PLACE = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")


def place(wanted: str) -> str:
    """A page of ours to go to after the login; the start page in place of anything else."""
    return wanted if _PLACE.fullmatch(wanted) else "/"


@router.get("/")
def overview(page: Seen) -> Response:
    """What there is, what runs, and what to do next."""
    context, project = page.context, page.project
    models, datasets = uploads.count(context.engine, project)
    names = Names(context, project)
    recent = jobs.list_jobs(context.engine, project, limit=SHOWN).items
    return page.show(
        "overview",
        models=models,
        datasets=datasets,
        states=jobs.count(context.engine, project),
        recent=[names.job(api.noted(context, job)) for job in recent],
        queues=context.liveness.queues(),
    )


@router.get("/login")
def login_page(page: Visitor, next: Annotated[str, Query(max_length=LONGEST)] = "/") -> Response:
    """The form that asks for a key."""
    return page.go(place(next)) if page.member else page.show("login", wanted=place(next), fault="")


@router.post("/login")
async def login(page: Visitor, fields: Filled) -> Response:
    """Exchanges a key for a session."""
    wanted = place(fields.one("next"))
    holder = await run_in_threadpool(keys.verify, page.context.engine, fields.one("key"))
    if holder is None:
        return page.show("login", 422, wanted=wanted, fault="This key is unknown, revoked or expired.")
    return page.enter(holder.key.id, wanted)


@router.post("/logout")
async def logout(page: Visitor, fields: Filled) -> Response:
    """Ends the session of this browser."""
    return page.leave("/login")
