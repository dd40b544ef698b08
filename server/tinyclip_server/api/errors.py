"""What every answer has: a request id, and a problem document when it is not a success."""

import json
import logging
import re
import secrets
from typing import Any, get_type_hints

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars
from tinyclip.schemas import FieldError
from tinyclip.validation import field_errors

from tinyclip_server.problems import PROBLEM_JSON, ApiError, InvalidInput, NotFound, TooLarge, Unavailable

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
JOB_PATH = re.compile(r"/v1/jobs/([A-Za-z0-9_-]{1,64})")
DEEPEST = 64
"""Levels of a JSON body. A spec has seven."""
UNFIT_MESSAGE = "the request holds text that cannot be stored: a NUL or half a surrogate pair"
UNFIT_TEXT = ("invalid byte sequence", "unsupported Unicode escape", "untranslatable character", "surrogates not allowed")


class RequestIds:
    """Gives each request an id (the caller's own if it sent a sane one) and answers what nobody caught with a bare 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        bind_contextvars(request_id=request_id, **_job_of(scope))
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            logger.exception("request %s failed", request_id)
            if started:
                raise
            error = ApiError(f"something went wrong here; the server's log has it under {request_id}")
            await problem_response(Request(scope), error)(scope, receive, send_with_id)


def install_problem_handlers(app: FastAPI) -> None:
    """Turn every error that can be foreseen into a problem document."""
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    for lost in (OperationalError, InterfaceError, PoolTimeout, ConnectionError):
        app.add_exception_handler(lost, _on_database_away)
    for unfit in (DBAPIError, UnicodeEncodeError):
        app.add_exception_handler(unfit, _on_unfit_text)


def problem_response(request: Request, error: ApiError) -> Response:
    problem = error.problem(instance=request.url.path, request_id=getattr(request.state, "request_id", None))
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    # ASCII only: a bad value is repeated as it came, and half a surrogate pair has no UTF-8.
    body = json.dumps(problem.model_dump(mode="python"), default=str)
    return Response(body, error.status, headers, media_type=PROBLEM_JSON)


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return problem_response(request, error)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    complaints = [dict(complaint) for complaint in error.errors()]
    if complaints and complaints[0]["type"] == "json_invalid":
        reason = complaints[0].get("ctx", {}).get("error", "malformed")
        place = complaints[0]["loc"][-1]
        return problem_response(
            request, InvalidInput.field("", None, f"the body is not JSON: {reason} at character {place}", code="malformed_json")
        )
    return problem_response(request, InvalidInput.of(_errors_of(request, complaints, error.body)))


def _errors_of(request: Request, complaints: list[dict[str, Any]], body: Any) -> list[FieldError]:
    """Body errors point into the body; the others name the query, path or header parameter."""
    in_body = [{**c, "loc": c["loc"][1:]} for c in complaints if c["loc"][0] == "body"]
    elsewhere = [
        FieldError(pointer=f"/{c['loc'][1]}", value=c.get("input"), message=f"{c['loc'][0]} parameter: {c['msg']}")
        for c in complaints
        if c["loc"][0] != "body"
    ]
    if any(c["loc"] == () for c in in_body) and body is None:
        return [FieldError(pointer="", message="a JSON body is required (Content-Type: application/json)")]
    return field_errors(in_body, body, _body_model(request)) + elsewhere


def _body_model(request: Request) -> type[BaseModel] | None:
    """The schema that the matched endpoint takes as its body."""
    endpoint = request.scope.get("endpoint")
    if endpoint is None:
        return None
    hints = [hint for name, hint in get_type_hints(endpoint).items() if name == "body"]
    return hints[0] if hints and isinstance(hints[0], type) and issubclass(hints[0], BaseModel) else None


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return problem_response(request, NotFound(f"there is no {request.url.path}; /docs lists the routes", code="no_route"))
    if error.status_code == 400:  # FastAPI's word for a body that cannot even be decoded
        return problem_response(request, InvalidInput.field("", None, "the body is not JSON in UTF-8", code="malformed_json"))
    if error.status_code == 413:
        return problem_response(request, TooLarge(error.detail))
    problem = ApiError(f"{request.method} {request.url.path}: {error.detail}", code=f"http_{error.status_code}")
    problem.status = error.status_code
    response = problem_response(request, problem)
    response.headers.update(error.headers or {})
    return response


async def expect_storable(request: Request) -> None:
    """JSON can spell a NUL or half a surrogate pair, which no database and no UTF-8 holds, and nest deeper than a stack is high.

    Raises InvalidInput.
    """
    if "json" not in request.headers.get("content-type", ""):  # no text of ours, and perhaps gigabytes
        return
    body = await request.body()
    spells = b"\\u" in body or b"\xed" in body  # escaped, or as the bytes that half a pair would have
    if not spells and body.count(b"[") + body.count(b"{") <= DEEPEST:
        return
    try:
        document = await request.json()
        if not _fits(document):
            raise InvalidInput(f"the body is nested deeper than {DEEPEST} levels")
        spelled_out = json.dumps(document, ensure_ascii=False)
    except (ValueError, RecursionError):  # what is not JSON at all is told elsewhere
        return
    if "\\u0000" in spelled_out or any("\ud800" <= letter <= "\udfff" for letter in spelled_out):
        raise InvalidInput(UNFIT_MESSAGE)


def _fits(document: Any) -> bool:
    """Whether no value lies deeper than DEEPEST; level by level, so that no stack grows with it."""
    level = [document]
    for _ in range(DEEPEST):
        level = [
            value
            for holder in level
            if isinstance(holder, dict | list)
            for value in (holder.values() if isinstance(holder, dict) else holder)
        ]
    return not level


async def _on_unfit_text(request: Request, error: Exception) -> Response:
    """Databases refuse text that is no text. Any other complaint of theirs is our mistake."""
    if isinstance(error, DBAPIError) and not any(sign in str(error.orig) for sign in UNFIT_TEXT):
        raise error
    return problem_response(request, InvalidInput(UNFIT_MESSAGE))


async def _on_database_away(request: Request, error: Exception) -> Response:
    if isinstance(error, DBAPIError) and error.statement is not None and "no such table" in str(error.orig):
        logger.error("the database has no tables; run tinyclip-server migrate")
    logger.warning("database unavailable: %s", error)
    return problem_response(request, Unavailable("the database cannot be reached; try again", retry_after=2))


def _job_of(scope: Scope) -> dict[str, str]:
    """The job that a request is about, for the log."""
    found = JOB_PATH.match(scope["path"])
    return {"job_id": found[1]} if found else {}


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value.decode("latin-1")):
            return str(value.decode("latin-1"))
    return "req_" + secrets.token_hex(8)

