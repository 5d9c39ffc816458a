"""Webhooks of a project, and the messages to them: written down with the end of a job, and kept until they have arrived."""

import base64
import secrets
from typing import NamedTuple

from pydantic_core import from_json
from sqlalchemy import Connection, Engine, RowMapping, delete, func, insert, select, update

from sparring.contract.states import FINAL, Reason
from sparring.contract.webhooks import EndedJob, JobEnded, NewWebhook, WebhookInfo
from sparring.storage.database import now, reading, writing
from sparring.storage.errors import Missing, Taken, TooMany
from sparring.storage.ids import new_id
from sparring.storage.pages import moment
from sparring.storage.tables import deliveries, jobs, webhooks

FIRST_PAUSE = 5.0
"""Seconds between the first try and the second; each further pause is twice as long."""
LONGEST_PAUSE = 6 * 3600.0
GIVEN_UP = 5 * 86400.0
"""Seconds after which a message that has not arrived is dropped."""
MOST = 20
"""Webhooks of a project: each job that ends is told to all of them."""


class Delivery(NamedTuple):
    """A message that is this process's to send for a while."""

    id: str
    webhook: str
    project: str
    url: str
    secret: str
    body: str
    tries: int
    """That failed before."""


def create(engine: Engine, *, project: str, url: str) -> NewWebhook:
    """A new webhook. Its secret is in the answer, and never told again. Raises TooMany, or Taken if the project has one there."""
    secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    row = {"id": new_id("whk"), "project_id": project, "url": url, "secret": secret, "fault": ""}
    own = select(webhooks.c.url).where(webhooks.c.project_id == project)
    with writing(engine) as connection:
        there = connection.scalars(own).all()
        if url in there:
            raise Taken(f"this project has a webhook at {url} already: remove it first, if its secret is lost")
        if len(there) >= MOST:
            raise TooMany(f"this project has {MOST} webhooks, and may have no more: remove one first")
        made = connection.execute(insert(webhooks).values(**row, created=now()).returning(webhooks)).mappings().one()
    return NewWebhook(**dict(_info(made, 0)), secret=secret)


def list_webhooks(engine: Engine, project: str) -> tuple[WebhookInfo, ...]:
    """The webhooks of a project, newest first."""
    waiting = select(func.count()).where(deliveries.c.webhook_id == webhooks.c.id).scalar_subquery().label("waiting")
    query = select(webhooks, waiting).where(webhooks.c.project_id == project).order_by(webhooks.c.created.desc(), webhooks.c.id)
    with reading(engine) as connection:
        return tuple(_info(row, row["waiting"]) for row in connection.execute(query).mappings())


def remove(engine: Engine, project: str, id: str) -> None:
    """Nothing is sent to it any more, not even what waits. Raises Missing."""
    with writing(engine) as connection:
        if not connection.execute(delete(webhooks).where(webhooks.c.project_id == project, webhooks.c.id == id)).rowcount:
            raise Missing(f"there is no webhook {id[:80]!r} in this project: list the webhooks to find its id")


def announce(connection: Connection, job_id: str) -> None:
    """Has the webhooks of its project told of a job, if it has ended. To be called in the transaction that ends it."""
    told = select(jobs, webhooks.c.id.label("webhook")).join(webhooks, webhooks.c.project_id == jobs.c.project_id)
    rows = connection.execute(told.where(jobs.c.id == job_id, jobs.c.state.in_(FINAL))).mappings().all()
    for row in rows:
        message = {"id": new_id("msg"), "webhook_id": row["webhook"], "project_id": row["project_id"], "body": _body(row)}
        connection.execute(insert(deliveries).values(**message, tries=0, due=now(), created=now()))


def claim(engine: Engine, *, lease: float, limit: int) -> list[Delivery]:
    """Messages whose time has come, at most `limit`; for `lease` seconds they are handed to no one else, and then they are due again."""
    due = select(deliveries.c.id).where(deliveries.c.due <= now()).order_by(deliveries.c.due).limit(limit)
    with reading(engine) as connection:
        ids = connection.scalars(due).all()
    if not ids:
        return []
    mine = deliveries.c.id.in_(ids) & (deliveries.c.due <= now())
    whom = select(deliveries, webhooks.c.url, webhooks.c.secret).join(webhooks, webhooks.c.id == deliveries.c.webhook_id)
    with writing(engine) as connection:
        held = connection.scalars(update(deliveries).where(mine).values(due=now() + lease).returning(deliveries.c.id)).all()
        return [_delivery(row) for row in connection.execute(whom.where(deliveries.c.id.in_(held))).mappings()]


def arrived(engine: Engine, delivery: Delivery) -> None:
    """The message has arrived."""
    with writing(engine) as connection:
        connection.execute(delete(deliveries).where(deliveries.c.id == delivery.id))
        connection.execute(update(webhooks).where(webhooks.c.id == delivery.webhook).values(delivered=now(), fault=""))


def failed(engine: Engine, delivery: Delivery, fault: str, *, wait: float = 0.0) -> None:
    """The message has not arrived: it is tried again after a pause, of at least `wait` seconds, until it is given up."""
    pause = min(max(FIRST_PAUSE * 2 ** min(delivery.tries, 20), wait), LONGEST_PAUSE)
    mine = deliveries.c.id == delivery.id
    with writing(engine) as connection:
        gone = connection.execute(delete(deliveries).where(mine, deliveries.c.created < now() - GIVEN_UP)).rowcount
        connection.execute(update(deliveries).where(mine).values(tries=delivery.tries + 1, due=now() + pause))
        said = f"{fault}; a message was given up" if gone else fault
        connection.execute(update(webhooks).where(webhooks.c.id == delivery.webhook).values(fault=said))


def _body(row: RowMapping) -> str:
    job, ended = from_json(row["body"]), moment(row["finished"])
    reason = Reason.model_validate_json(row["reason"]) if row["reason"] else None
    told = EndedJob(id=row["id"], kind=job["kind"], state=row["state"], reason=reason, model=job["model"], data=job["data"], finished=ended)
    return JobEnded(timestamp=ended, data=told).model_dump_json()


def _delivery(row: RowMapping) -> Delivery:
    return Delivery(row["id"], row["webhook_id"], row["project_id"], row["url"], row["secret"], row["body"], row["tries"])


def _info(row: RowMapping, waiting: int) -> WebhookInfo:
    delivered = moment(row["delivered"]) if row["delivered"] is not None else None
    return WebhookInfo(
        id=row["id"], url=row["url"], created=moment(row["created"]), waiting=waiting, delivered=delivered, fault=row["fault"]
    )
