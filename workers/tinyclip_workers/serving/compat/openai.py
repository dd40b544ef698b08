"""OpenAI's model list and error shape. Its embeddings are our own route's: images are sent as infinity, Jina and vLLM do."""

from typing import TYPE_CHECKING, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tinyclip.schemas import FieldError, Problem
from tinyclip.schemas import Response as Schema

from tinyclip_workers.serving.problems import problem_error

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Replica


class OpenAIModel(Schema):
    id: str
    object: Literal["model"] = "model"
    created: int
    """Unix time at which this replica started."""
    owned_by: str


class OpenAIModels(Schema):
    object: Literal["list"] = "list"
    data: list[OpenAIModel]


async def models(replica: "Replica", request: Request) -> Response:
    return JSONResponse(OpenAIModels(data=_models(replica)).model_dump())


async def model(replica: "Replica", request: Request) -> Response:
    name = request.path_params["id"]
    for known in _models(replica):
        if known.id == name:
            return JSONResponse(known.model_dump())
    detail = f"there is no model {name} here; GET v1/models lists them"
    raise problem_error(404, "model_not_found", "There is no such model", detail)


def _models(replica: "Replica") -> list[OpenAIModel]:
    """Return every version that a query may name, and the deployment's name, which stands for the version it serves."""
    project, names = replica.options.project, [*replica.models.names(), replica.options.name]
    return [OpenAIModel(id=name, created=replica.started_at, owned_by=project) for name in names]


class OpenAIError(Schema):
    """OpenAI's members first; the others are a problem document's."""

    message: str
    type: str
    param: str | None
    code: str
    request_id: str | None
    errors: list[FieldError]


class OpenAIErrorBody(Schema):
    """The answer to a failed request below /v1."""

    error: OpenAIError


def is_openai(path: str) -> bool:
    return path.startswith("/v1/")


def openai_error(problem: Problem) -> OpenAIErrorBody:
    types = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    type = "server_error" if problem.status >= 500 else types.get(problem.status, "invalid_request_error")
    param = problem.errors[0].pointer.lstrip("/").replace("/", ".") if problem.errors else None
    error = OpenAIError(
        message=problem.detail, type=type, param=param, code=problem.code, request_id=problem.request_id, errors=problem.errors
    )
    return OpenAIErrorBody(error=error)
