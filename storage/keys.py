"""API keys: `svc_<id>_<secret>`, shown once; only the sha256 of the secret is kept."""

import re
import secrets
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest
from typing import NamedTuple

from sqlalchemy import Engine, RowMapping, delete, insert, or_, select, update

from sparring.contract.resources import KeyInfo, NewKey
from sparring.storage.database import now, reading, writing
from sparring.storage.errors import Missing
from sparring.storage.ids import new_id
from sparring.storage.pages import moment
from sparring.storage.tables import keys

USED_EVERY = 60
"""Seconds: how exactly the last use of a key is known."""

_KEY = re.compile(r"svc_(key_[0-9a-z]{20})_([A-Za-z0-9_-]{43})")


class Holder(NamedTuple):
    """Whom a key lets in: the project, and the key."""

    project: str
    key: KeyInfo


def create(engine: Engine, *, project: str, name: str, expires: datetime | None = None) -> NewKey:
    """A new key. Its text is in the answer and nowhere else."""
    id, secret = new_id("key"), secrets.token_urlsafe(32)
    row = {"id": id, "project_id": project, "name": name, "digest": _digest(secret)}
    with writing(engine) as connection:
        query = insert(keys).values(**row, expires=expires.timestamp() if expires else None, created=now()).returning(keys)
        made = _info(connection.execute(query).mappings().one())
    return NewKey(**dict(made), key=f"svc_{id}_{secret}")


def verify(engine: Engine, text: str) -> Holder | None:
    """Whom this key lets in; None if it is wrong, revoked or expired. Takes the same time for a wrong secret as for a right one."""
    parts = _KEY.fullmatch(text)
    if parts is None:
        return None
    id, secret = parts.groups()
    stale = or_(keys.c.last_used.is_(None), keys.c.last_used < now() - USED_EVERY)
    valid = or_(keys.c.expires.is_(None), keys.c.expires > now())
    with reading(engine) as connection:
        row = connection.execute(select(keys, stale.label("stale")).where(keys.c.id == id, valid)).mappings().first()
    if not compare_digest(_digest(secret), row["digest"] if row else ""):
        return None
    if row is None:
        return None
    if row["stale"]:
        with writing(engine) as connection:
            connection.execute(update(keys).where(keys.c.id == id).values(last_used=now()))
    return Holder(row["project_id"], _info(row))


def held(engine: Engine, id: str) -> Holder | None:
    """Whom the key with this id lets in, for someone who has shown the key before; None if it was revoked or has expired."""
    valid = or_(keys.c.expires.is_(None), keys.c.expires > now())
    with reading(engine) as connection:
        row = connection.execute(select(keys).where(keys.c.id == id, valid)).mappings().first()
    return Holder(row["project_id"], _info(row)) if row else None


def list_keys(engine: Engine, project: str) -> tuple[KeyInfo, ...]:
    """The keys of a project, newest first."""
    query = select(keys).where(keys.c.project_id == project).order_by(keys.c.created.desc(), keys.c.id)
    with reading(engine) as connection:
        return tuple(_info(row) for row in connection.execute(query).mappings())


def revoke(engine: Engine, project: str, id: str) -> None:
    """The key lets nobody in any more. Raises Missing."""
    with writing(engine) as connection:
        if not connection.execute(delete(keys).where(keys.c.project_id == project, keys.c.id == id)).rowcount:
            raise Missing(f"there is no key {id[:80]!r} in this project: list the keys to find its id")


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _info(row: RowMapping) -> KeyInfo:
    return KeyInfo(
        id=row["id"],
        name=row["name"],
        created=moment(row["created"]),
        last_used=moment(row["last_used"]) if row["last_used"] is not None else None,
        expires=moment(row["expires"]) if row["expires"] is not None else None,
    )
