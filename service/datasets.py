"""Datasets: uploaded as raw bytes, listed, downloaded, deleted."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from sparring.contract.resources import DatasetInfo, Name, Page
from sparring.contract.specs import DataSpec
from sparring.service import files
from sparring.service.auth import Project
from sparring.service.context import Ctx
from sparring.service.pages import Linking, Paging
from sparring.service.uploads import UploadQuery, accept, raw_body
from sparring.storage import uploads
from sparring.storage.sniff import sniff_data

router = APIRouter(prefix="/datasets", tags=["datasets"])


class DatasetQuery(UploadQuery, DataSpec):
    """What a dataset is called, and what its numbers mean."""

    name: Name = "dataset"

    @property
    def declared(self) -> DataSpec:
        """What its numbers mean."""
        return DataSpec(**self.model_dump(include=set(DataSpec.model_fields)))


@router.post("", status_code=201, summary="Upload a dataset", openapi_extra=raw_body("data.npz"))
async def upload_dataset(
    context: Ctx, project: Project, query: Annotated[DatasetQuery, Query()], request: Request, response: Response
) -> DatasetInfo:
    """Takes an .npz archive with `x` and, if there are labels, `y` as the raw body. Float data that do not declare bounds are refused."""
    spec = query.declared
    blob, found = await accept(request, context, partial(sniff_data, spec=spec), query.sha256)
    info = await run_in_threadpool(
        uploads.add_dataset, context.engine, project=project, name=query.name, blob=blob, format=found, spec=spec
    )
    response.headers["Location"] = f"/v1/datasets/{info.id}"
    return info


@router.get("", summary="All datasets")
def list_datasets(context: Ctx, project: Project, paging: Paging, links: Linking) -> Page[DatasetInfo]:
    """The newest first."""
    page = uploads.list_datasets(context.engine, project, limit=paging.limit, cursor=paging.cursor)
    links.to_next(page)
    return page


@router.get("/{dataset_id}", summary="One dataset")
def get_dataset(context: Ctx, project: Project, dataset_id: str) -> DatasetInfo:
    """By id or by the sha256 of its bytes."""
    return uploads.get_dataset(context.engine, project, dataset_id)


@router.get("/{dataset_id}/content", summary="Download a dataset", response_class=FileResponse, responses={200: files.BINARY})
def download_dataset(context: Ctx, project: Project, dataset_id: str, request: Request) -> Response:
    """The bytes as they were uploaded."""
    info = uploads.get_dataset(context.engine, project, dataset_id)
    return files.send(context, request, info.sha256, "application/octet-stream", download_as=f"{info.name}.{info.format}")


@router.delete("/{dataset_id}", status_code=204, summary="Delete a dataset")
def delete_dataset(context: Ctx, project: Project, dataset_id: str) -> None:
    """409 while a job that is not finished needs it."""
    uploads.delete_dataset(context.engine, project, dataset_id)
