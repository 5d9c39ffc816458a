"""Pages of datasets: the list, one dataset, the upload."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from sparring.contract.resources import DatasetInfo
from sparring.service import datasets as api
from sparring.service.pages import PageQuery
from sparring.service.uploads import keep
from sparring.service.web.fields import Filled
from sparring.service.web.intake import Intake, taken_in
from sparring.service.web.names import Names
from sparring.service.web.view import Seen
from sparring.storage import jobs, uploads
from sparring.storage.sniff import sniff_data

router = APIRouter(prefix="/datasets")

MEANING = ("name", "bounds", "scale", "layout")
PAGE = 25


@router.get("")
def dataset_list(page: Seen, query: Annotated[PageQuery, Query()]) -> Response:
    """The newest first."""
    found = uploads.list_datasets(page.context.engine, page.project, limit=min(query.limit, PAGE), cursor=query.cursor)
    return page.show("datasets", datasets=found.items, next_cursor=found.next_cursor)


@router.get("/new")
def dataset_form(page: Seen) -> Response:
    """The form of an upload."""
    return page.show("dataset_new", **Intake().shown(page))


@router.post("/new")
async def upload_dataset(page: Seen, request: Request) -> Response:
    """Takes a dataset in as `POST /v1/datasets` does."""

    async def store(intake: Intake) -> DatasetInfo:
        query = api.DatasetQuery.model_validate(intake.given)
        spec = query.declared
        blob, found = await keep(intake.pieces, page.context, partial(sniff_data, spec=spec))
        return await run_in_threadpool(
            uploads.add_dataset, page.context.engine, project=page.project, name=query.name, blob=blob, format=found, spec=spec
        )

    intake, made = await taken_in(page, request, MEANING, store)
    if made is None:
        return await run_in_threadpool(page.show, "dataset_new", 422, **intake.shown(page))
    return page.go(f"/datasets/{made.id}")


@router.get("/{dataset_id}")
def dataset_page(page: Seen, dataset_id: str) -> Response:
    """One dataset, and the jobs on it."""
    found = uploads.get_dataset(page.context.engine, page.project, dataset_id)
    names = Names(page.context, page.project)
    done = jobs.list_jobs(page.context.engine, page.project, limit=PAGE, data=found.id).items
    return page.show("dataset", dataset=found, jobs=[names.job(job) for job in done])


@router.get("/{dataset_id}/content")
def dataset_content(page: Seen, dataset_id: str, request: Request) -> Response:
    """The bytes as they were uploaded."""
    return api.download_dataset(page.context, page.project, dataset_id, request)


@router.post("/{dataset_id}/delete")
def delete_dataset(page: Seen, fields: Filled, dataset_id: str) -> Response:
    """Forgets the dataset."""
    uploads.delete_dataset(page.context.engine, page.project, dataset_id)
    return page.go("/datasets")
