"""OpenAI's shape of embeddings, with images as infinity, Jina and vLLM write them. Errors below /v1 are in OpenAI's shape too."""

from typing import TYPE_CHECKING, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tinyclip.schemas import EmbeddingsRequest, EmbeddingsResponse
from tinyclip.schemas import Response as Schema

from tinyclip_workers.serving.http.route import Described
from tinyclip_workers.serving.http.routes import embeddings
from tinyclip_workers.serving.queries.problems import refuse

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Student


class OpenAIModel(Schema):
    id: str
    object: Literal["model"] = "model"
    created: int
    """Seconds since 1970: when this replica began."""
    owned_by: str


class OpenAIModels(Schema):
    object: Literal["list"] = "list"
    data: list[OpenAIModel]


async def models(student: "Student", request: Request) -> Response:
    return JSONResponse(OpenAIModels(data=_models(student)).model_dump())


async def model(student: "Student", request: Request) -> Response:
    name = request.path_params["id"]
    for known in _models(student):
        if known.id == name:
            return JSONResponse(known.model_dump())
    raise refuse(404, "model_not_found", "There is no such model", f"there is no model {name} here; GET v1/models lists them")


def _models(student: "Student") -> list[OpenAIModel]:
    """Every version that may be named, and the deployment's name for whichever version it serves."""
    project = student.options.project
    return [OpenAIModel(id=id, created=student.began, owned_by=project) for id in (*student.models.names(), student.options.name)]


ROUTES = [
    Described("POST", "/v1/embeddings", embeddings, "Embeddings, as OpenAI's API has them", EmbeddingsRequest,
              ("input", "encoding_format", "on_error", "dimensions", "model"), EmbeddingsResponse),
    Described("GET", "/v1/models", models, "What is served", answer=OpenAIModels),
    Described("GET", "/v1/models/{id:path}", model, "One of what is served", answer=OpenAIModel),
]  # fmt: skip
