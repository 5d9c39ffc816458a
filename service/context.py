"""What every request may use: settings, records, artifacts and the queue's connection."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from redis import Redis
from sqlalchemy import Engine

from sparring.service.liveness import Liveness
from sparring.service.sessions import Sessions
from sparring.storage.artifacts import Folder
from sparring.storage.settings import Settings

MAX_BODY = 1 << 20
"""Bytes of a JSON body at most; uploads have a limit of their own."""


@dataclass(frozen=True)
class Context:
    """Opened once when the app starts."""

    settings: Settings
    engine: Engine
    folder: Folder
    redis: Redis
    """A hasty connection: a caller waits."""
    liveness: Liveness
    sessions: Sessions


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Ctx = Annotated[Context, Depends(_context)]
"""Parameter type of an endpoint that needs the context."""
