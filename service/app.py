"""The REST API and the pages as one application. It opens records and artifacts when it starts, and never a model."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.trustedhost import TrustedHostMiddleware

import sparring
from sparring.service import (
    auth,
    catalogue,
    datasets,
    events,
    gates,
    health,
    jobs,
    keys,
    metrics,
    models,
    openapi,
    problems,
    reports,
    webhooks,
)
from sparring.service.context import Context
from sparring.service.liveness import Liveness
from sparring.service.middleware import PlainErrors, RequestLog
from sparring.service.sessions import Sessions, shared_secret
from sparring.service.web import site
from sparring.storage import database, queue
from sparring.storage.artifacts import Folder
from sparring.storage.settings import Settings

SUMMARY = "Upload a model and a dataset, submit a job, get a robustness report with its evidence."
LOOPBACK = ["127.0.0.1", "localhost", "[::1]"]


def _v1() -> APIRouter:
    router = APIRouter(prefix="/v1", dependencies=[auth.required])
    for part in (models, datasets, jobs, events, reports, catalogue, gates, keys, webhooks):
        router.include_router(part.router)
    return router


def create_app(settings: Settings) -> FastAPI:
    """The application, which expects migrated records. Raises UnsafeSettings where it would be open to strangers."""
    auth.check(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine, redis = database.connect(settings.database), queue.connect(settings.redis_url, hasty=True)
        sessions = Sessions(shared_secret(settings.data))
        app.state.context = Context(settings, engine, Folder(settings.artifacts), redis, Liveness(redis), sessions)
        try:
            yield
        finally:
            redis.close()
            engine.dispose()

    app = FastAPI(
        title="Sparring",
        summary=SUMMARY,
        version=sparring.__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_name,
        separate_input_output_schemas=False,
    )
    app.include_router(_v1())
    app.include_router(health.router)
    app.include_router(metrics.router)
    problems.install(app)
    openapi.install(app)
    if settings.anonymous:
        # Without keys the name a browser used is the only sign that a stranger's page points its own domain at loopback.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK, www_redirect=False)
    app.add_middleware(PlainErrors)
    app.add_middleware(RequestLog)
    site.install(app)
    return app


def _name(route: APIRoute) -> str:
    return route.name
