"""Webhooks: who is told of the end of a job, and what they are told."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from sparring.contract.base import Frozen
from sparring.contract.endpoints import plain
from sparring.contract.states import Reason, State


def _address(url: str) -> str:
    if "@" in plain(url).netloc:
        raise ValueError("must not hold a user or a password: what is sent is signed, and needs none")
    return url


class WebhookRequest(Frozen):
    """A webhook to be made."""

    url: Annotated[str, Field(max_length=2000, examples=["https://ci.example.com/hooks/sparring"]), AfterValidator(_address)]
    """Where a message is posted whenever a job of the project has ended."""


class WebhookInfo(Frozen):
    """A webhook, and how its messages fare."""

    id: str
    url: str
    created: datetime
    waiting: int
    """Messages that have not arrived yet."""
    delivered: datetime | None = None
    """When one last arrived."""
    fault: str = ""
    """Why the last one that was sent did not arrive; empty since one has."""


class NewWebhook(WebhookInfo):
    """A webhook at its making: the only time its secret is shown."""

    secret: str
    """`whsec_` and a key in base64, as libraries of the Standard Webhooks take it."""


class EndedJob(Frozen):
    """A job that has ended."""

    id: str
    kind: str
    state: State
    reason: Reason | None = None
    model: str
    data: str
    finished: datetime


class JobEnded(Frozen):
    """What is posted: the report is fetched by the id of the job."""

    type: Literal["job.ended"] = "job.ended"
    timestamp: datetime
    data: EndedJob
