"""What the service is set to, and the keys of the project."""

from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Response
from pydantic import ValidationError

from sparring.contract.resources import NewKey
from sparring.service import health
from sparring.service import keys as api
from sparring.service.web.faults import Faults, of_validation
from sparring.service.web.fields import Fields, Filled
from sparring.service.web.view import Seen
from sparring.storage import keys

router = APIRouter(prefix="/settings")

_LASTING = {"30": 30, "90": 90, "365": 365}
"""Days for which a new key may be made; anything else is for ever."""
_FRESH = {"days": ["90"]}


@router.get("")
def settings_page(page: Seen) -> Response:
    """The keys, and what else is set."""
    return _show(page, Fields(_FRESH), {})


def _show(page: Seen, values: Fields, faults: Faults, made: NewKey | None = None) -> Response:
    listed = keys.list_keys(page.context.engine, page.project)
    return page.show(
        "settings",
        422 if faults else 200,
        keys=listed,
        made=made,
        values=values,
        faults=faults,
        project=page.project,
        settings=page.context.settings,
        runs=health.version(),
        now=datetime.now(UTC),
    )


@router.post("/keys")
def create_key(page: Seen, fields: Filled) -> Response:
    """Makes a key, and shows it this one time."""
    days = _LASTING.get(fields.one("days"))
    given: dict[str, Any] = {"name": fields.one("name"), "expires": datetime.now(UTC) + timedelta(days=days) if days else None}
    try:
        wanted = api.KeyRequest.model_validate(given)
    except ValidationError as error:
        return _show(page, fields, of_validation(error, given))
    return _show(page, Fields(_FRESH), {}, keys.create(page.context.engine, project=page.project, name=wanted.name, expires=wanted.expires))


@router.post("/keys/{key_id}/revoke")
def revoke_key(page: Seen, fields: Filled, key_id: str) -> Response:
    """The key lets nobody in any more."""
    keys.revoke(page.context.engine, page.project, key_id)
    return page.go("/settings")
