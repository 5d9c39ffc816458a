"""Pages of models: the list, one model with its lineage and what was measured of it, the badge, the upload."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from sparring.contract.resources import ModelInfo
from sparring.contract.specs import ModelReading, ModelSpec
from sparring.service import models as api
from sparring.service.pages import PageQuery
from sparring.service.uploads import keep
from sparring.service.web import badge
from sparring.service.web.fields import Filled
from sparring.service.web.intake import Intake, taken_in
from sparring.service.web.measured import ancestors, history, weakest
from sparring.service.web.names import Names
from sparring.service.web.view import Seen
from sparring.storage import jobs, uploads
from sparring.storage.sniff import sniff_model

router = APIRouter(prefix="/models")

READING = ("name", "arch", "mean", "std", "layout", "classes")
PAGE = 25


@router.get("")
def model_list(page: Seen, query: Annotated[PageQuery, Query()]) -> Response:
    """The newest first, each with what was last measured of it."""
    found = uploads.list_models(page.context.engine, page.project, limit=min(query.limit, PAGE), cursor=query.cursor)
    lines = [(model, weakest(page.context, page.project, model)) for model in found.items]
    names = Names(page.context, page.project)
    return page.show("models", lines=lines, names=names, next_cursor=found.next_cursor)


@router.get("/new")
def model_form(page: Seen) -> Response:
    """The form of an upload."""
    return page.show("model_new", **Intake().shown(page))


@router.post("/new")
async def upload_model(page: Seen, request: Request) -> Response:
    """Takes a model in as `POST /v1/models` does."""

    async def store(intake: Intake) -> ModelInfo:
        query = api.ModelQuery.model_validate(intake.given)
        blob, found = await keep(intake.pieces, page.context, sniff_model)
        spec = ModelSpec(**query.model_dump(include=set(ModelReading.model_fields)))
        return await run_in_threadpool(
            uploads.add_model, page.context.engine, project=page.project, name=query.name, blob=blob, format=found, spec=spec
        )

    intake, made = await taken_in(page, request, READING, store)
    if made is None:
        return await run_in_threadpool(page.show, "model_new", 422, **intake.shown(page))
    return page.go(f"/models/{made.id}")


@router.get("/{model_id}")
def model_page(page: Seen, model_id: str) -> Response:
    """One model."""
    context, project = page.context, page.project
    model = uploads.get_model(context.engine, project, model_id)
    names = Names(context, project)
    measured = history(context, project, model)
    done = jobs.list_jobs(context.engine, project, limit=PAGE, model=model.id).items
    versions = uploads.namesakes(context.engine, project, model.name)
    return page.show(
        "model",
        model=model,
        ancestors=ancestors(context, project, model),
        descendants=uploads.descendants(context.engine, project, model.id),
        versions=versions if len(versions) > 1 else (),
        measured=measured,
        threats=sorted({each.threat for each in measured}),
        last=weakest(context, project, model),
        maker=uploads.maker(context.engine, project, model.id),
        names=names,
        badge=badge.markdown(page.request, context, model),
        jobs=[names.job(job) for job in done],
    )


@router.get("/{model_id}/content")
def model_content(page: Seen, model_id: str, request: Request) -> Response:
    """The bytes as they were uploaded."""
    return api.download_model(page.context, page.project, model_id, request)


@router.get("/{model_id}/badge.svg")
def model_badge(page: Seen, model_id: str) -> Response:
    """What was last measured, as a picture for a README."""
    model = uploads.get_model(page.context.engine, page.project, model_id)
    return Response(badge.of(page.context, page.project, model), media_type="image/svg+xml")


@router.post("/{model_id}/delete")
def delete_model(page: Seen, fields: Filled, model_id: str) -> Response:
    """Forgets the model."""
    uploads.delete_model(page.context.engine, page.project, model_id)
    return page.go("/models")
