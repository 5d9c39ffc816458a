"""Webhooks of the caller's project: made, listed, removed. The secret is shown once."""

from fastapi import APIRouter, Response

from sparring.contract.webhooks import NewWebhook, WebhookInfo, WebhookRequest
from sparring.service.auth import Project
from sparring.service.context import MAX_BODY, Ctx
from sparring.storage import grants, webhooks

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


@router.post("", status_code=201, summary="Make a webhook", max_body_size=MAX_BODY)
def create_webhook(context: Ctx, project: Project, wanted: WebhookRequest, response: Response) -> NewWebhook:
    """From now on the end of every job is posted there. The only answer that shows the secret: keep it, to check signatures."""
    grants.check_receiver(context.settings.grants, project, wanted.url)
    response.headers["Cache-Control"] = "no-store"
    return webhooks.create(context.engine, project=project, url=wanted.url)


@router.get("", summary="All webhooks")
def list_webhooks(context: Ctx, project: Project) -> list[WebhookInfo]:
    """Webhooks without their secrets, and how their messages fare."""
    return list(webhooks.list_webhooks(context.engine, project))


@router.delete("/{webhook_id}", status_code=204, summary="Remove a webhook")
def remove_webhook(context: Ctx, project: Project, webhook_id: str) -> None:
    """Nothing is posted there any more, not even what has not arrived yet."""
    webhooks.remove(context.engine, project, webhook_id)
