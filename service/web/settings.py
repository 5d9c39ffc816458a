"""What the service is set to, and the keys and webhooks of the project."""

from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Response
from pydantic import ValidationError

from sparring.contract.resources import NewKey
from sparring.contract.webhooks import NewWebhook, WebhookRequest
from sparring.service import health
from sparring.service import keys as api
from sparring.service.problems import problem
from sparring.service.web.faults import Faults, of_problem, of_validation
from sparring.service.web.fields import Fields, Filled
from sparring.service.web.view import Seen
from sparring.storage import grants, keys, webhooks
from sparring.storage.errors import Forbidden, Taken, TooMany

router = APIRouter(prefix="/settings")

_LASTING = {"30": 30, "90": 90, "365": 365}
"""Days for which a new key may be made; anything else is for ever."""
_FRESH = {"days": ["90"]}


@router.get("")
def settings_page(page: Seen) -> Response:
    """The keys, the webhooks, and what else is set."""
    return _show(page, Fields(_FRESH), {})


def _show(page: Seen, values: Fields, faults: Faults, made: NewKey | None = None, hook: NewWebhook | None = None) -> Response:
    listed = keys.list_keys(page.context.engine, page.project)
    return page.show(
        "settings",
        422 if faults else 200,
        keys=listed,
        webhooks=webhooks.list_webhooks(page.context.engine, page.project),
        made=made,
        hook=hook,
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


@router.post("/webhooks")
def create_webhook(page: Seen, fields: Filled) -> Response:
    """Makes a webhook, and shows its secret this one time."""
    given = {"url": fields.one("url")}
    try:
        url = WebhookRequest.model_validate(given).url
        grants.check_receiver(page.context.settings.grants, page.project, url)
        hook = webhooks.create(page.context.engine, project=page.project, url=url)
    except ValidationError as error:
        return _show(page, fields, of_validation(error, given))
    except Forbidden as error:
        return _show(page, fields, of_problem(problem(422, error.code, error.message, hint=error.hint), "url"))
    except (Taken, TooMany) as error:
        return _show(page, fields, of_problem(problem(409, "taken", str(error)), "url"))
    return _show(page, Fields(_FRESH), {}, hook=hook)


@router.post("/webhooks/{webhook_id}/remove")
def remove_webhook(page: Seen, fields: Filled, webhook_id: str) -> Response:
    """Nothing is posted there any more."""
    webhooks.remove(page.context.engine, page.project, webhook_id)
    return page.go("/settings")
