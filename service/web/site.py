"""The pages as a whole: their routes, their files, and what wraps them."""

from fastapi import APIRouter, FastAPI
from starlette.staticfiles import StaticFiles

from sparring.service.web import badge, compare, datasets, gates, jobs, models, overview, report, settings, submit, workers
from sparring.service.web.middleware import Pages
from sparring.service.web.view import STATIC

PARTS = (overview, models, badge, datasets, submit, jobs, report, compare, gates, workers, settings)
API = frozenset({"v1", "healthz", "readyz", "version", "metrics", "openapi.json"})
"""First parts of paths that are never pages."""


def install(app: FastAPI) -> None:
    """Serves the pages beside the API."""
    site = APIRouter(include_in_schema=False)
    for part in PARTS:
        site.include_router(part.router)
    app.include_router(site)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    firsts = {path.split("/")[1] for part in PARTS for route in part.router.routes if (path := getattr(route, "path", ""))}
    app.add_middleware(Pages, pages=frozenset({*firsts, "static"}), api=API)
