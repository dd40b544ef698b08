"""Read the body of a request within its limits, as a JSON object or as the parts of a multipart form."""

import json
from typing import Any, TypeVar

import orjson
import pydantic
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from tinyclip.schemas import JSON

from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import field_error, invalid_document, invalid_input, problem_error
from tinyclip_workers.serving.request_context import add_count, phase

Model = TypeVar("Model", bound=pydantic.BaseModel)

MAX_FILES = 256
MAX_FIELDS = 11_000

Parts = list[tuple[str, str | bytes]]
"""The parts of a form in their order: text for a field, bytes for a file."""


async def read_document(request: Request, options: ServingOptions) -> JSON:
    """Return the body as a JSON object. Raises ProblemError."""
    body = await read_body(request, options.max_body_bytes)
    try:
        document = _parse(body)
    except (ValueError, RecursionError) as error:
        raise problem_error(422, "malformed_json", "The request is not JSON", f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise invalid_input(field_error("", document, "the body is not a JSON object"))
    return document


def _parse(body: bytes) -> Any:
    """Parse with orjson, which takes half the time of json but rejects lone surrogates; a later check names their field.

    Raises ValueError, RecursionError.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return json.loads(body)


def is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


async def read_form(request: Request, options: ServingOptions) -> Parts:
    """Return the parts of a multipart body. Raises ProblemError."""
    body = await read_body(request, options.max_body_bytes)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

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


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the body. Raises ProblemError (413) as soon as it is too large."""
    chunks, size = [], 0
    with phase("body"):
        async for chunk in request.stream():
            size += len(chunk)
            if size > max_bytes:
                detail = f"the request is larger than {max_bytes:,} bytes; send fewer or smaller images in one request"
                raise problem_error(413, "request_too_large", "The request is too large", detail)
            chunks.append(chunk)
    add_count("bytes", size)
    return b"".join(chunks)


def validated(model: type[Model], document: JSON, at: str = "") -> Model:
    """Validate the document at the pointer `at`. Raises ProblemError naming every invalid field."""
    try:
        return model.model_validate(document)
    except pydantic.ValidationError as error:
        raise invalid_document(error, document, model, at) from error
