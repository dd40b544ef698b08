"""How a query is refused: a problem document (RFC 9457) that names the field, what was there and the way out."""

import difflib
import json
import logging
from collections.abc import Sequence
from typing import Any

import pydantic
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from tinyclip.schemas import JSON, FieldError, Problem
from tinyclip.schemas import Response as Schema

from tinyclip_workers.serving.queries.timings import current

log = logging.getLogger(__name__)

LONGEST_VALUE = 80
"""Characters of a bad value that are shown again: enough to recognise it, not the whole picture."""


class OpenAIError(Schema):
    """OpenAI's members first; the others are a problem's."""

    message: str
    type: str
    param: str | None
    code: str
    request_id: str | None
    errors: list[FieldError]


class OpenAIErrorBody(Schema):
    """How a refusal looks below /v1."""

    error: OpenAIError


class Refusal(Exception):
    """An answer that is a problem document."""

    def __init__(self, problem: Problem, headers: dict[str, str] | None = None) -> None:
        super().__init__(problem.detail)
        self.problem, self.headers = problem, headers or {}


def refuse(
    status: int, code: str, title: str, detail: str, *, retryable: bool = False, headers: dict[str, str] | None = None
) -> Refusal:
    return Refusal(Problem(status=status, code=code, title=title, detail=detail, retryable=retryable), headers)


def invalid(*errors: FieldError) -> Refusal:
    """422: these fields are wrong."""
    detail = "; ".join(f"{error.pointer}: {error.message}" for error in errors[:3])
    more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
    return Refusal(
        Problem(
            status=422, code="invalid_request", title="The request cannot be processed", detail=detail + more, errors=list(errors)
        )
    )


def field_error(pointer: str, value: Any, message: str) -> FieldError:
    return FieldError(pointer=pointer, value=shown(value), message=message)


def invalid_fields(error: pydantic.ValidationError, model: type[pydantic.BaseModel], at: str = "") -> Refusal:
    """422 from what pydantic found wrong, in a document at the pointer `at`."""
    return invalid(*(_field_error(found, model, at) for found in error.errors(include_url=False)))


def shown(value: Any) -> Any:
    """A bad value, cut to what a person wants to see again."""
    if isinstance(value, str):
        readable = value[:LONGEST_VALUE].encode("utf-8", "backslashreplace").decode()  # a lone surrogate is no JSON
        return readable if len(value) <= LONGEST_VALUE else f"{readable}… ({len(value):,} characters)"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, list):
        return [shown(item) for item in value[:5]]
    return value if isinstance(value, int | float | bool) or value is None else type(value).__name__


async def answer_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return problem_response(request, error.problem, error.headers)


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Unknown paths and methods."""
    assert isinstance(error, HTTPException)
    title = str(error.detail)
    known = "POST zero-shot, embeddings and search, GET healthz, and others in GET openapi.json"
    detail = f"{request.method} {request.url.path}: {title}; there are {known}"
    code = title.lower().replace(" ", "_")
    problem = Problem(status=error.status_code, code=code, title=title, detail=detail)
    return problem_response(request, problem, dict(error.headers or {}))


def our_fault(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    detail = "the deployment failed at this request; its log, by the request's id, says why"
    return problem_response(request, Problem(status=500, code="internal_error", title="Internal error", detail=detail), {})


def problem_response(request: Request, problem: Problem, headers: dict[str, str]) -> Response:
    """In the shape that callers of the route know: OpenAI's below /v1, Weaviate's `error` at /vectorize, else a bare problem."""
    asked = current()
    if asked is not None:
        asked.code = problem.code
    problem = problem.model_copy(
        update={"instance": request.url.path, "request_id": asked.request_id if asked else None}
    )
    headers = {k: v for k, v in headers.items() if k.lower() != "content-length"}
    path = route_path(request)
    if is_openai(path):
        return _json(_as_openai_has_it(problem).model_dump(), problem.status, headers, "application/json")
    document = problem.model_dump() | ({"error": problem.detail} if path == "/vectorize" else {})
    return _json(document, problem.status, headers, "application/problem+json")


def _json(document: JSON, status: int, headers: dict[str, str], kind: str) -> Response:
    """ASCII only: a bad value is repeated as it came, and half a surrogate pair has no UTF-8."""
    return Response(json.dumps(document), status, headers, media_type=kind)


def route_path(request: Request) -> str:
    """Below the deployment's prefix, as the routes read it; `request.url` is made of the Host header too."""
    path: str = request.scope["path"]
    return path.removeprefix(request.scope.get("root_path", ""))


def is_openai(path: str) -> bool:
    return path.startswith("/v1/")


def _as_openai_has_it(problem: Problem) -> OpenAIErrorBody:
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = "server_error" if problem.status >= 500 else kinds.get(problem.status, "invalid_request_error")
    param = problem.errors[0].pointer.lstrip("/").replace("/", ".") if problem.errors else None
    error = OpenAIError(
        message=problem.detail, type=kind, param=param, code=problem.code, request_id=problem.request_id, errors=problem.errors
    )
    return OpenAIErrorBody(error=error)


def _field_error(found: Any, model: type[pydantic.BaseModel], at: str) -> FieldError:
    where: Sequence[str | int] = found["loc"]
    pointer = at + "".join(f"/{part}" for part in where) or "/"
    if found["type"] == "extra_forbidden":
        return field_error(pointer, found["input"], _unknown_field(str(where[-1]), model))
    if found["type"] == "missing":
        return FieldError(pointer=pointer, message="is missing")
    return field_error(pointer, found["input"], found["msg"].removeprefix("Value error, "))


def _unknown_field(name: str, model: type[pydantic.BaseModel]) -> str:
    close = difflib.get_close_matches(name, model.model_fields, n=1)
    known = f"did you mean {close[0]}?" if close else f"known are {', '.join(model.model_fields)}"
    return f"unknown field; {known}"
