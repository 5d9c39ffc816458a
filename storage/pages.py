"""Pages of a list, newest first. The cursor is the last row of the page before."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, select, tuple_

from sparring.contract.resources import Page
from sparring.storage.errors import BadCursor

T = TypeVar("T")


def moment(seconds: float) -> datetime:
    """The time of a record, in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def page(
    connection: Connection, table: Table, build: Callable[[RowMapping], T], *where: ColumnElement[bool], limit: int, cursor: str | None
) -> Page[T]:
    """At most `limit` rows of a table with `created` and `id`, after `cursor`. Raises BadCursor."""
    place = tuple_(table.c.created, table.c.id)
    query = select(table).where(*where).order_by(table.c.created.desc(), table.c.id.desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(place < tuple_(*_decode(cursor)))
    rows = connection.execute(query).mappings().all()
    more = len(rows) > limit
    rows = rows[:limit]
    next_cursor = _encode(rows[-1]["created"], rows[-1]["id"]) if more and rows else None
    return Page(items=tuple(build(row) for row in rows), next_cursor=next_cursor)


def _encode(created: float, id: str) -> str:
    return base64.urlsafe_b64encode(f"{created.hex()} {id}".encode()).decode()


def _decode(cursor: str) -> tuple[float, str]:
    try:
        created, id = base64.b64decode(cursor, b"-_", validate=True).decode("ascii").split(" ")
        return float.fromhex(created), id
    except ValueError as fault:
        raise BadCursor(f"the cursor {cursor[:80]!r} is not one this list gave out: leave it away to begin at the start") from fault
