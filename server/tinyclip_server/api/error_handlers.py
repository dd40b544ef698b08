"""Handlers that turn exceptions into problem documents, the errors of `tinyclip_server.problems` among them."""

import json
import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from tinyclip.artifacts.remote import StoreUnavailable
from tinyclip.bounded_json import UNSTORABLE_TEXT
from tinyclip.schemas import FieldError
from tinyclip.validation import MAX_ERRORS, shown_value

from tinyclip_server.backends.ray_gateway import RayUnavailable
from tinyclip_server.problems import PROBLEM_JSON, ApiError, InvalidInput, NotFound, TooLarge, Unavailable

logger = logging.getLogger(__name__)

MAX_PATH_CHARACTERS = 500
"""Characters of a path that a problem document repeats."""
UNSTORABLE_SIGNS = (
    "invalid byte sequence", "unsupported Unicode escape", "untranslatable character", "surrogates not allowed",
)
"""Parts of the messages by which databases refuse text."""


def install_problem_handlers(app: FastAPI) -> None:
    """Install a handler for every kind of exception that is not a bug."""
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    for unavailable in (OperationalError, InterfaceError, PoolTimeout, ConnectionError):
        app.add_exception_handler(unavailable, _on_database_unavailable)
    app.add_exception_handler(StoreUnavailable, _on_store_unavailable)
    app.add_exception_handler(RayUnavailable, _on_ray_unavailable)
    for unstorable in (DBAPIError, UnicodeEncodeError):
        app.add_exception_handler(unstorable, _on_unstorable_text)


def problem_response(request: Request, error: ApiError) -> Response:
    """Return the problem document of an error."""
    problem = error.problem(instance=_path(request), request_id=getattr(request.state, "request_id", None))
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    # ASCII only: a rejected value is repeated, and an unpaired surrogate has no UTF-8.
    body = json.dumps(problem.model_dump(mode="python"), default=str)
    return Response(body, error.status, headers, media_type=PROBLEM_JSON)


def _path(request: Request) -> str:
    path = request.url.path
    return path if len(path) <= MAX_PATH_CHARACTERS else f"{path[:MAX_PATH_CHARACTERS]}…"


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return problem_response(request, error)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    """Answer invalid parameters of the query, the path and the headers; `http/bodies.py` validates bodies."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    errors = [
        FieldError(
            pointer=f"/{one['loc'][1]}", value=shown_value(one.get("input")), message=f"{one['loc'][0]} parameter: {one['msg']}"
        )
        for one in found[:MAX_ERRORS]
    ]
    return problem_response(request, InvalidInput.of(errors, total=len(found)))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return problem_response(request, NotFound(f"there is no {_path(request)}; /docs lists the routes", code="no_route"))
    if error.status_code == 400:  # FastAPI's answer to a body that is not UTF-8
        return problem_response(request, InvalidInput.field("", None, "the body is not JSON in UTF-8", code="malformed_json"))
    if error.status_code == 413:
        return problem_response(request, TooLarge(error.detail))
    problem = ApiError(f"{request.method} {_path(request)}: {error.detail}", code=f"http_{error.status_code}")
    problem.status = error.status_code
    response = problem_response(request, problem)
    response.headers.update(error.headers or {})
    return response


async def _on_unstorable_text(request: Request, error: Exception) -> Response:
    """Report text that the database refuses; any other error of a driver is a bug of the server."""
    if isinstance(error, DBAPIError) and not any(sign in str(error.orig) for sign in UNSTORABLE_SIGNS):
        raise error
    return problem_response(request, InvalidInput(UNSTORABLE_TEXT))


async def _on_database_unavailable(request: Request, error: Exception) -> Response:
    if isinstance(error, DBAPIError) and error.statement is not None and "no such table" in str(error.orig):
        logger.error("the database has no tables; run tinyclip-server migrate")
    logger.warning("database unavailable: %s", error)
    return problem_response(request, Unavailable("the database cannot be reached; try again", retry_after=2))


async def _on_store_unavailable(request: Request, error: Exception) -> Response:
    logger.warning("artifacts store unavailable: %s", error)
    detail = "the artifacts store does not answer; try again"
    return problem_response(request, Unavailable(detail, code="store_unavailable", retry_after=5))


async def _on_ray_unavailable(request: Request, error: Exception) -> Response:
    logger.info("Ray unavailable: %s", error)
    return problem_response(request, Unavailable("Ray does not answer; try again", code="ray_unavailable", retry_after=2))
