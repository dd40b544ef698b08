"""Read the body of a request within its limits, as a JSON object or as the parts of a multipart form.

Large bodies are parsed and checked in a thread, so that no query waits for another one's body.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import pydantic
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from tinyclip.bounded_json import INLINE_BYTES, Limits, MalformedJson, TooComplex, UnstorableText, off_the_loop, parse
from tinyclip.schemas import JSON

from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import field_error, invalid_document, invalid_input, problem_error
from tinyclip_workers.serving.request_context import add_count, hold_bytes, phase

Model = TypeVar("Model", bound=pydantic.BaseModel)
T = TypeVar("T")

MAX_FILES = 256
MAX_FIELDS = 11_000
FORM_CHUNK_BYTES = 64 << 10
"""Piece of a form that is parsed at once: too many parts are noticed after it."""
LIMITS = Limits()

Parts = list[tuple[str, str | bytes]]
"""The parts of a form in their order: text for a field, bytes for a file."""


async def read_query(request: Request, options: ServingOptions, query: Callable[[JSON], T]) -> T:
    """Return the query that a JSON object is; `query` checks it. Raises ProblemError."""
    body = await read_body(request, options)
    return await off_the_loop(len(body), lambda: query(_document(body)))


async def read_form_query(request: Request, options: ServingOptions, query: Callable[[Parts], T]) -> T:
    """Return the query that a multipart form is; `query` checks its parts. Raises ProblemError."""
    body = await read_body(request, options)
    return await off_the_loop(INLINE_BYTES + 1, lambda: query(asyncio.run(_parts(request, body))))


def _document(body: bytes) -> JSON:
    """Raises ProblemError."""
    try:
        document = _parse(body)
    except MalformedJson as error:
        raise problem_error(422, "malformed_json", "The request is not JSON", str(error)) from error
    except TooComplex as error:
        raise problem_error(422, "too_complex", "The request is too complex", str(error)) from error
    except UnstorableText as error:
        raise problem_error(422, "malformed_json", "The request has text that is not Unicode", str(error)) from error
    if not isinstance(document, dict):
        raise invalid_input(field_error("", document, "the body is not a JSON object"))
    return document


def _parse(body: bytes) -> Any:
    """Parse a body; a lone surrogate of a small one is accepted, and a later check names its field."""
    try:
        return parse(body, LIMITS, allow_nul=True)
    except UnstorableText:
        if len(body) <= INLINE_BYTES:
            with suppress(ValueError, RecursionError):  # something after the surrogate is wrong too
                return json.loads(body)
        raise


def is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


async def _parts(request: Request, body: bytes) -> Parts:
    """Return the parts of a multipart body. Raises ProblemError."""
    chunks = (body[start : start + FORM_CHUNK_BYTES] for start in range(0, len(body), FORM_CHUNK_BYTES))

    async def receive() -> dict[str, Any]:
        chunk = next(chunks, b"")
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    try:
        parsed = Request(request.scope, receive).form(max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=len(body) or 1)
        async with parsed as form:
            return [
                (name, await value.read() if isinstance(value, UploadFile) else value) for name, value in form.multi_items()
            ]
    except (MultiPartException, HTTPException) as error:
        why = getattr(error, "detail", None) or getattr(error, "message", error)
        raise problem_error(422, "malformed_form", "The form cannot be read", f"not a valid multipart form: {why}") from error


def form_document(parts: Parts, repeated: tuple[str, ...]) -> JSON:
    """Return the fields that are no images as JSON would have them: `repeated` ones as lists, of others the last value."""
    document: JSON = {}
    for name, value in parts:
        if name in repeated:
            document.setdefault(name, []).append(value)
        elif name not in ("image", "images"):
            document[name] = value
    return document


def form_images(parts: Parts) -> list[str | bytes]:
    """Return the images of a form: files, or base64 in fields."""
    return [value for name, value in parts if name in ("image", "images")]


async def read_body(request: Request, options: ServingOptions) -> bytes:
    """Return the body. Raises ProblemError: 413 as soon as it is too large, 429 if too much of other requests is in memory."""
    chunks, size = [], 0
    with phase("body"):
        async for chunk in request.stream():
            size += len(chunk)
            if size > options.max_body_bytes:
                limit = f"the request is larger than {options.max_body_bytes:,} bytes"
                detail = f"{limit}; send fewer or smaller images in one request"
                raise problem_error(413, "request_too_large", "The request is too large", detail)
            hold(len(chunk), options)
            chunks.append(chunk)
    add_count("bytes", size)
    return b"".join(chunks)


def hold(size: int, options: ServingOptions) -> None:
    """Count bytes that the current request holds in memory until it is answered. Raises ProblemError (429) above the limit."""
    if not hold_bytes(size, options.max_held_bytes):
        detail = "the memory for bodies and fetched images is full; try again in 2 s, or send fewer images in one request"
        raise problem_error(429, "busy", "Too many requests", detail, retryable=True, headers={"Retry-After": "2"})


def validated(model: type[Model], document: JSON, at: str = "") -> Model:
    """Validate the document at the pointer `at`. Raises ProblemError naming every invalid field."""
    try:
        return model.model_validate(document)
    except pydantic.ValidationError as error:
        raise invalid_document(error, document, model, at) from error
