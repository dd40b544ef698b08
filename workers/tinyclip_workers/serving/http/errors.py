"""Answers to exceptions: problem documents, in the shape that clients of the route expect."""

import json
import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from tinyclip.schemas import Problem

from tinyclip_workers.serving import request_context
from tinyclip_workers.serving.compat.openai import is_openai, openai_error
from tinyclip_workers.serving.compat.weaviate import VECTORIZE
from tinyclip_workers.serving.problems import ProblemError
from tinyclip_workers.serving.replica.access import route_path

log = logging.getLogger(__name__)


async def on_problem_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return _response(request, error.problem, error.headers)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer unknown paths and methods."""
    assert isinstance(error, HTTPException)
    title = str(error.detail)
    known = "POST zero-shot, embeddings and search, GET healthz, and others in GET openapi.json"
    detail = f"{request.method} {request.url.path}: {title}; there are {known}"
    code = title.lower().replace(" ", "_")
    problem = Problem(status=error.status_code, code=code, title=title, detail=detail)
    return _response(request, problem, dict(error.headers or {}))


def internal_error(request: Request, error: Exception) -> Response:
    """Log an unexpected exception and answer 500 without its message."""
    log.error("%s %a failed", request.method, request.url.path, exc_info=error)  # a path may have control characters
    detail = "an internal error occurred; the deployment's log has the details under the request's id"
    return _response(request, Problem(status=500, code="internal_error", title="Internal error", detail=detail), {})


def _response(request: Request, problem: Problem, headers: dict[str, str]) -> Response:
    """Return OpenAI's shape below /v1, Weaviate's `error` beside the problem at its route, else the bare problem."""
    context = request_context.current()
    if context is not None:
        context.error_code = problem.code
    problem = problem.model_copy(
        update={"instance": request.url.path, "request_id": context.request_id if context else None}
    )
    headers = {k: v for k, v in headers.items() if k.lower() != "content-length"}
    path = route_path(request)
    if is_openai(path):
        document, media_type = openai_error(problem).model_dump(), "application/json"
    else:
        document, media_type = problem.model_dump(), "application/problem+json"
        if path == VECTORIZE:
            document["error"] = problem.detail
    # ASCII only: a rejected value is repeated, and half a surrogate pair has no UTF-8.
    return Response(json.dumps(document), problem.status, headers, media_type=media_type)
