"""API keys of the caller's project: made, listed, revoked. The secret is shown once."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import AfterValidator, AwareDatetime, Field

from sparring.contract.base import Frozen
from sparring.contract.resources import KeyInfo, Name, NewKey
from sparring.service.auth import Project
from sparring.service.context import MAX_BODY, Ctx
from sparring.storage import keys

router = APIRouter(prefix="/keys", tags=["keys"])


def _future(given: datetime) -> datetime:
    if given <= datetime.now(given.tzinfo):
        raise ValueError("must lie in the future")
    return given


class KeyRequest(Frozen):
    """A key to be made."""

    name: Annotated[Name, Field(examples=["ci"])]
    """What it is for."""
    expires: Annotated[AwareDatetime, AfterValidator(_future)] | None = None
    """When it stops working; never unless said. With a time zone: `2031-01-01T00:00:00Z`."""


@router.post("", status_code=201, summary="Make a key", max_body_size=MAX_BODY)
def create_key(context: Ctx, project: Project, wanted: KeyRequest, response: Response) -> NewKey:
    """The only answer that shows the secret: keep it."""
    response.headers["Cache-Control"] = "no-store"
    return keys.create(context.engine, project=project, name=wanted.name, expires=wanted.expires)


@router.get("", summary="All keys")
def list_keys(context: Ctx, project: Project) -> list[KeyInfo]:
    """Keys without their secrets."""
    return list(keys.list_keys(context.engine, project))


@router.delete("/{key_id}", status_code=204, summary="Revoke a key")
def revoke_key(context: Ctx, project: Project, key_id: str) -> None:
    """From now on the key opens nothing."""
    keys.revoke(context.engine, project, key_id)
