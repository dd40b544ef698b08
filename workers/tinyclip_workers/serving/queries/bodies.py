"""What a request carries: its body within limits, as a JSON object or as the parts of a form."""

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
from tinyclip_workers.serving.queries.problems import field_error, invalid, invalid_fields, refuse
from tinyclip_workers.serving.queries.timings import count, phase

Model = TypeVar("Model", bound=pydantic.BaseModel)

MAX_FILES = 256
MAX_FIELDS = 11_000

Parts = list[tuple[str, str | bytes]]
"""Fields as text, files as bytes, in the order of the form."""


async def read_document(request: Request, options: ServingOptions) -> JSON:
    """Raises Refusal: too large, or not a JSON object."""
    body = await read_body(request, options.max_body_bytes)
    try:
        document = _parsed(body)
    except (ValueError, RecursionError) as error:
        raise refuse(422, "malformed_json", "The request is not JSON", f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise invalid(field_error("", document, "the body is not a JSON object"))
    return document


def _parsed(body: bytes) -> Any:
    """orjson takes half the time, but refuses lone surrogates, which a later check names with the field that has them.

    Raises ValueError, RecursionError.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return json.loads(body)


def is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


async def read_form(request: Request, options: ServingOptions) -> Parts:
    """Raises Refusal: too large, or not a form."""
    body = await read_body(request, options.max_body_bytes)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        parsed = Request(request.scope, receive).form(max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=len(body) or 1)
        async with parsed as form:
            return [(name, await _content(value)) for name, value in form.multi_items()]
    except (MultiPartException, HTTPException) as error:
        why = getattr(error, "detail", None) or getattr(error, "message", error)
        raise refuse(422, "malformed_form", "The form cannot be read", f"not a valid multipart form: {why}") from error


async def _content(value: str | UploadFile) -> str | bytes:
    return await value.read() if isinstance(value, UploadFile) else value


def form_document(parts: Parts, several: tuple[str, ...]) -> JSON:
    """The fields beside the images as JSON would have them: those of `several` as lists, of others the last one."""
    document: JSON = {}
    for name, value in parts:
        if name in several:
            document.setdefault(name, []).append(value)
        elif name not in ("image", "images"):
            document[name] = value
    return document


def form_images(parts: Parts) -> list[str | bytes]:
    """Files, or base64 in fields."""
    return [value for name, value in parts if name in ("image", "images")]


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Raises Refusal (413) as soon as it is too large."""
    chunks, size = [], 0
    with phase("body"):
        async for chunk in request.stream():
            size += len(chunk)
            if size > max_bytes:
                detail = f"the request is larger than {max_bytes:,} bytes; send fewer or smaller images in one request"
                raise refuse(413, "request_too_large", "The request is too large", detail)
            chunks.append(chunk)
    count("bytes", size)
    return b"".join(chunks)


def validated(model: type[Model], document: JSON, at: str = "") -> Model:
    """Raises Refusal naming every field that is wrong, below the pointer `at`."""
    try:
        return model.model_validate(document)
    except pydantic.ValidationError as error:
        raise invalid_fields(error, model, at) from error
