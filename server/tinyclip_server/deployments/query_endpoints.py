"""Routes below `/v1/deployments/{name}` that a deployment answers: exactly these are forwarded to it."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel
from tinyclip.schemas import (
    EmbeddingsRequest,
    EmbeddingsResponse,
    LabelSet,
    LabelSetSummary,
    Page,
    SearchRequest,
    SearchResponse,
    ZeroShotRequest,
    ZeroShotResponse,
)

from tinyclip_server.deployments import service
from tinyclip_server.deployments.queries import ForwardedQuery
from tinyclip_server.http.services import Project, Services, ServicesDep

router = APIRouter(prefix="/deployments", tags=["queries"])

Set = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
PageSize = Annotated[int, Query(ge=1, le=200)]  # what a deployment accepts
PageToken = Annotated[str, Query(max_length=1000)]


def _body(schema: type[BaseModel]) -> dict[str, Any]:
    """Return the description of a body that this server does not read."""
    form = {"type": "object", "description": "the same fields, and files named `image`"}
    content = {"application/json": {"schema": schema.model_json_schema()}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


@router.post("/{name}/zero-shot", response_model=ZeroShotResponse, openapi_extra=_body(ZeroShotRequest))
async def zero_shot(name: str, services: ServicesDep, project: Project) -> Response:
    """Classify images, as `POST {endpoint}/zero-shot` of the deployment does."""
    return await _forwarded(services, project, name, "zero-shot")


@router.post("/{name}/embeddings", response_model=EmbeddingsResponse, openapi_extra=_body(EmbeddingsRequest))
async def embeddings(name: str, services: ServicesDep, project: Project) -> Response:
    """Embed texts and images, as `POST {endpoint}/embeddings` of the deployment does."""
    return await _forwarded(services, project, name, "embeddings")


@router.post("/{name}/search", response_model=SearchResponse, openapi_extra=_body(SearchRequest))
async def search(name: str, services: ServicesDep, project: Project) -> Response:
    """Search an index, as `POST {endpoint}/search` of the deployment does."""
    return await _forwarded(services, project, name, "search")


@router.get("/{name}/health", response_model=dict[str, Any])
async def health(name: str, services: ServicesDep, project: Project) -> Response:
    """Get the report of one replica: its model, its engine and its canary."""
    return await _forwarded(services, project, name, "healthz")


@router.get("/{name}/label-sets", response_model=Page[LabelSetSummary])
async def label_sets(
    name: str, services: ServicesDep, project: Project, page_size: PageSize = 50, page_token: PageToken = ""
) -> Response:
    """List the deployment's label sets by name."""
    return await _forwarded(services, project, name, f"label-sets?page_size={page_size}&page_token={quote(page_token, safe='')}")


@router.get("/{name}/label-sets/{set}", response_model=LabelSet)
async def label_set(name: str, set: Set, services: ServicesDep, project: Project) -> Response:
    """Get a label set with its labels and templates."""
    return await _forwarded(services, project, name, f"label-sets/{quote(set, safe='')}")


async def _forwarded(services: Services, project: str, name: str, path: str) -> Response:
    """Raises NotFound, Conflict."""
    async with services.db.read() as session:
        row = service.queryable(await service.get(session, project, name))
    return ForwardedQuery(services.serve, project, f"{service.endpoint(services.settings, row.name)}/{path}")
