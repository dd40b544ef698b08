"""Handlers that turn exceptions into problem documents, the errors of `tinyclip_server.problems` among them."""

import json
import logging
from typing import Any, get_type_hints

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from tinyclip.schemas import FieldError
from tinyclip.validation import field_errors

from tinyclip_server.api.body_checks import UNSTORABLE_TEXT
from tinyclip_server.problems import PROBLEM_JSON, ApiError, InvalidInput, NotFound, TooLarge, Unavailable

logger = logging.getLogger(__name__)

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
    for unstorable in (DBAPIError, UnicodeEncodeError):
        app.add_exception_handler(unstorable, _on_unstorable_text)


def problem_response(request: Request, error: ApiError) -> Response:
    """Return the problem document of an error."""
    problem = error.problem(instance=request.url.path, request_id=getattr(request.state, "request_id", None))
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    # ASCII only: a rejected value is repeated, and an unpaired surrogate has no UTF-8.
    body = json.dumps(problem.model_dump(mode="python"), default=str)
    return Response(body, error.status, headers, media_type=PROBLEM_JSON)


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return problem_response(request, error)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [dict(found) for found in error.errors()]
    if errors and errors[0]["type"] == "json_invalid":
        reason = errors[0].get("ctx", {}).get("error", "malformed")
        place = errors[0]["loc"][-1]
        return problem_response(
            request, InvalidInput.field("", None, f"the body is not JSON: {reason} at character {place}", code="malformed_json")
        )
    return problem_response(request, InvalidInput.of(_field_errors(request, errors, error.body)))


def _field_errors(request: Request, errors: list[dict[str, Any]], body: Any) -> list[FieldError]:
    """Return errors of the body, which point into it, and of query, path and header parameters, which name them."""
    in_body = [{**error, "loc": error["loc"][1:]} for error in errors if error["loc"][0] == "body"]
    of_parameters = [
        FieldError(
            pointer=f"/{error['loc'][1]}", value=error.get("input"), message=f"{error['loc'][0]} parameter: {error['msg']}"
        )
        for error in errors
        if error["loc"][0] != "body"
    ]
    if body is None and any(error["loc"] == () for error in in_body):
        return [FieldError(pointer="", message="a JSON body is required (Content-Type: application/json)")]
    return field_errors(in_body, body, _body_model(request)) + of_parameters


def _body_model(request: Request) -> type[BaseModel] | None:
    """Return the schema of the body of the matched endpoint."""
    endpoint = request.scope.get("endpoint")
    if endpoint is None:
        return None
    hints = [hint for name, hint in get_type_hints(endpoint).items() if name == "body"]
    return hints[0] if hints and isinstance(hints[0], type) and issubclass(hints[0], BaseModel) else None


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return problem_response(request, NotFound(f"there is no {request.url.path}; /docs lists the routes", code="no_route"))
    if error.status_code == 400:  # FastAPI's answer to a body that is not UTF-8
        return problem_response(request, InvalidInput.field("", None, "the body is not JSON in UTF-8", code="malformed_json"))
    if error.status_code == 413:
        return problem_response(request, TooLarge(error.detail))
    problem = ApiError(f"{request.method} {request.url.path}: {error.detail}", code=f"http_{error.status_code}")
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
