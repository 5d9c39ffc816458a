"""Models: uploaded as raw bytes, listed, downloaded, deleted."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from sparring.contract.resources import ModelInfo, Name, Page
from sparring.contract.specs import ModelSpec
from sparring.service import files
from sparring.service.auth import Project
from sparring.service.context import Ctx
from sparring.service.pages import Linking, Paging
from sparring.service.uploads import UploadQuery, accept, raw_body
from sparring.storage import uploads
from sparring.storage.sniff import sniff_model

router = APIRouter(prefix="/models", tags=["models"])

SUFFIX = {"pt2": ".pt2", "safetensors": ".safetensors", "state_dict": ".pt", "onnx": ".onnx"}


class ModelQuery(UploadQuery, ModelSpec):
    """What a model is called, and how it is to be read."""

    name: Name = "model"


@router.post("", status_code=201, summary="Upload a model", openapi_extra=raw_body("model.pt2"))
async def upload_model(
    context: Ctx, project: Project, query: Annotated[ModelQuery, Query()], request: Request, response: Response
) -> ModelInfo:
    """Takes a .pt2, .safetensors, .onnx file or a state dict as the raw body. Formats that run code when opened are refused."""
    blob, found = await accept(request, context, sniff_model, query.sha256)
    spec = ModelSpec(**query.model_dump(include=set(ModelSpec.model_fields)))
    info = await run_in_threadpool(uploads.add_model, context.engine, project=project, name=query.name, blob=blob, format=found, spec=spec)
    response.headers["Location"] = f"/v1/models/{info.id}"
    return info


@router.get("", summary="All models")
def list_models(context: Ctx, project: Project, paging: Paging, links: Linking) -> Page[ModelInfo]:
    """The newest first."""
    page = uploads.list_models(context.engine, project, limit=paging.limit, cursor=paging.cursor)
    links.to_next(page)
    return page


@router.get("/{model_id}", summary="One model")
def get_model(context: Ctx, project: Project, model_id: str) -> ModelInfo:
    """By id or by the sha256 of its bytes."""
    return uploads.get_model(context.engine, project, model_id)


@router.get("/{model_id}/content", summary="Download a model", response_class=FileResponse, responses={200: files.BINARY})
def download_model(context: Ctx, project: Project, model_id: str, request: Request) -> Response:
    """The bytes as they were uploaded."""
    info = uploads.get_model(context.engine, project, model_id)
    return files.send(context, request, info.sha256, "application/octet-stream", download_as=info.name + SUFFIX[info.format])


@router.delete("/{model_id}", status_code=204, summary="Delete a model")
def delete_model(context: Ctx, project: Project, model_id: str) -> None:
    """409 while a job that is not finished needs it."""
    uploads.delete_model(context.engine, project, model_id)
