"""Models: uploaded as raw bytes, or registered as endpoints; listed, downloaded, deleted."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from sparring.contract.resources import ModelInfo, Name, Page
from sparring.contract.specs import ModelFormat, ModelReading, ModelSpec
from sparring.service import endpoints, files
from sparring.service.auth import Project
from sparring.service.context import Ctx
from sparring.service.pages import Linking, Paging
from sparring.service.uploads import UploadQuery, accept, raw_body
from sparring.storage import uploads
from sparring.storage.sniff import sniff_model

router = APIRouter(prefix="/models", tags=["models"])

SUFFIX = {"pt2": ".pt2", "safetensors": ".safetensors", "state_dict": ".pt", "onnx": ".onnx", "endpoint": ".json"}


class ModelQuery(UploadQuery, ModelReading):
    """What a model is called, and how it is to be read."""

    name: Name = "model"


@router.post("", status_code=201, summary="Upload a model, or register an endpoint", openapi_extra=endpoints.or_json(raw_body("model.pt2")))
async def upload_model(
    context: Ctx, project: Project, query: Annotated[ModelQuery, Query()], request: Request, response: Response
) -> ModelInfo:
    """Takes a .pt2, .safetensors, .onnx file or a state dict as the raw body. Formats that run code when opened are refused.

    A body of type application/json is an endpoint: how it is asked. It must be among those the project may have asked.
    """
    spec = ModelSpec(**query.model_dump(include=set(ModelReading.model_fields)))
    found: ModelFormat
    if endpoints.is_json(request):
        found = "endpoint"
        blob, spec = await endpoints.accept(request, context, project, spec, query.sha256)
    else:
        blob, found = await accept(request, context, sniff_model, query.sha256)
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
