"""From an HTTP request to a checked query: JSON, multipart and the Hugging Face shape come out the same."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pydantic
from pydantic import Field
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request as HttpRequest
from tinyclip.schemas import JSON, EmbeddingsRequest, FieldError, Request, SearchRequest, ZeroShotRequest
from tinyclip.schemas.filters import FilterError, parse_filter

from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import field_error, invalid, invalid_fields, refuse

ImageInput = str | bytes
"""A base64 string or data URI out of JSON, or the bytes of an uploaded file."""

MAX_IMAGES = 256
MAX_INPUTS = 2048
"""Of one embeddings request, as OpenAI has it."""
MAX_CHARACTERS = 10_000
"""Of one text; what a model reads of it ends much earlier."""
HUGGING_FACE_TEMPLATE = "This is a photo of {}."

Model = TypeVar("Model", bound=pydantic.BaseModel)


@dataclass(frozen=True)
class Images:
    """Images of a request and where each one was, as JSON pointers."""

    images: Sequence[ImageInput]
    pointers: Sequence[str]


@dataclass(frozen=True)
class ZeroShotQuery:
    images: Images
    labels: list[str]
    templates: list[str]
    top_k: int
    skip_bad_images: bool
    hugging_face: bool = False
    """Answer one bare list of labels and scores, as Hugging Face's pipelines do."""


class HuggingFaceParameters(Request):
    candidate_labels: list[str] | str
    hypothesis_template: str = HUGGING_FACE_TEMPLATE


class HuggingFaceRequest(Request):
    inputs: str
    parameters: HuggingFaceParameters


class _Fields(Request):
    """The fields of a multipart form beside its files."""

    labels: list[str] = Field(min_length=1, max_length=10_000)
    templates: list[str] = Field(default=["{}"], min_length=1, max_length=200)
    top_k: int = Field(default=5, ge=1)
    on_error: str = Field(default="fail", pattern="^(fail|skip)$")


async def read_zero_shot(request: HttpRequest, options: ServingOptions) -> ZeroShotQuery:
    """Raises Refusal naming every field that is wrong."""
    body = await _read_body(request, options.max_body_bytes)
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        query = _from_form(await _form(request, body))
    else:
        document = _document(body)
        query = _from_hugging_face(document) if "inputs" in document else _from_json(document)
    _check_templates(query)
    check_texts("/labels", query.labels)
    if len(query.labels) * len(query.templates) > options.max_texts:
        message = f"{len(query.labels)} labels times {len(query.templates)} templates are more than {options.max_texts:,} texts"
        raise invalid(field_error("/templates", len(query.templates), f"{message}; send fewer of either"))
    return query


async def read_embeddings(request: HttpRequest, options: ServingOptions) -> EmbeddingsRequest:
    """Raises Refusal."""
    query = _validated(EmbeddingsRequest, _document(await _read_body(request, options.max_body_bytes)))
    inputs = [query.input] if isinstance(query.input, str) else query.input
    most = MAX_INPUTS if query.modality == "text" else MAX_IMAGES
    if not 1 <= len(inputs) <= most:
        raise invalid(field_error("/input", len(inputs), f"{len(inputs)} inputs; give 1 to {most} in one request"))
    if query.model not in (None, options.name, options.model, options.model.partition("@")[0]):
        raise invalid(field_error("/model", query.model, f"this deployment serves {options.model}; omit model or name that one"))
    if query.modality == "text":
        check_texts("/input", query.input)
    return query


async def read_search(request: HttpRequest, options: ServingOptions) -> SearchRequest:
    """Raises Refusal."""
    query = _validated(SearchRequest, _document(await _read_body(request, options.max_body_bytes)))
    if (query.text is None) == (query.image is None):
        raise invalid(FieldError(pointer="/text", value=None, message="give exactly one of text and image"))
    if query.text is not None:
        check_texts("/text", query.text)
    try:
        parse_filter(query.filter or {})
    except FilterError as error:
        raise invalid(field_error(f"/filter{error.pointer}", error.value, str(error))) from error
    return query


def check_texts(pointer: str, texts: str | list[str]) -> None:
    """Raises Refusal for texts that are blank, far too long or not Unicode."""
    listed = [(pointer, texts)] if isinstance(texts, str) else [(f"{pointer}/{i}", text) for i, text in enumerate(texts)]
    errors = [field_error(where, text, problem) for where, text in listed if (problem := _text_problem(text))]
    if errors:
        raise invalid(*errors)


def _text_problem(text: str) -> str | None:
    if not text.strip():
        return "is blank; give a text"
    if len(text) > MAX_CHARACTERS:
        return f"has {len(text):,} characters, more than {MAX_CHARACTERS:,}; a model reads the first few dozen words only"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "has a lone surrogate, which is no Unicode text"
    return None


def _check_templates(query: ZeroShotQuery) -> None:
    where = "/parameters/hypothesis_template" if query.hugging_face else "/templates"
    check_texts(where, query.templates)
    errors = [
        field_error(where if query.hugging_face else f"{where}/{i}", template, "has no {} where the label goes")
        for i, template in enumerate(query.templates)
        if "{}" not in template
    ]
    if errors:
        raise invalid(*errors)


def _from_json(document: JSON) -> ZeroShotQuery:
    query = _validated(ZeroShotRequest, document)
    if (query.image is None) == (query.images is None):
        raise invalid(FieldError(pointer="/image", message="give exactly one of image and images"))
    if query.images is not None:
        images = Images(query.images, [f"/images/{i}" for i in range(len(query.images))])
    else:
        images = Images([query.image or ""], ["/image"])
    return ZeroShotQuery(images, query.labels, query.templates, query.top_k, query.on_error == "skip")


def _from_hugging_face(document: JSON) -> ZeroShotQuery:
    query = _validated(HuggingFaceRequest, document)
    given = query.parameters.candidate_labels
    labels = [part.strip() for part in given.split(",")] if isinstance(given, str) else given
    if not 1 <= len(labels) <= 10_000:
        raise invalid(field_error("/parameters/candidate_labels", len(labels), "give 1 to 10,000 labels"))
    images = Images([query.inputs], ["/inputs"])
    return ZeroShotQuery(images, labels, [query.parameters.hypothesis_template], len(labels), False, hugging_face=True)


def _from_form(form: list[tuple[str, str | bytes]]) -> ZeroShotQuery:
    images = [value for name, value in form if name in ("image", "images")]
    if not 1 <= len(images) <= MAX_IMAGES:
        raise invalid(field_error("/image", len(images), f"give 1 to {MAX_IMAGES} files under the name image"))
    given: JSON = {}
    for name, value in form:
        if name in ("labels", "templates"):
            given.setdefault(name, []).append(value)
        elif name not in ("image", "images"):
            given[name] = value
    fields = _validated(_Fields, given)
    pointers = ["/image"] if len(images) == 1 else [f"/image/{i}" for i in range(len(images))]
    return ZeroShotQuery(Images(images, pointers), fields.labels, fields.templates, fields.top_k, fields.on_error == "skip")


async def _form(request: HttpRequest, body: bytes) -> list[tuple[str, str | bytes]]:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        form: FormData = await HttpRequest(request.scope, receive).form(
            max_files=MAX_IMAGES, max_fields=11_000, max_part_size=len(body) or 1
        )
    except (MultiPartException, HTTPException) as error:
        why = getattr(error, "detail", None) or getattr(error, "message", error)
        raise refuse(422, "malformed_form", "The form cannot be read", f"not a valid multipart form: {why}") from error
    return [(name, await value.read() if isinstance(value, UploadFile) else value) for name, value in form.multi_items()]


async def _read_body(request: HttpRequest, max_bytes: int) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            detail = f"the request is larger than {max_bytes:,} bytes; send fewer or smaller images in one request"
            raise refuse(413, "request_too_large", "The request is too large", detail)
        chunks.append(chunk)
    return b"".join(chunks)


def _document(body: bytes) -> JSON:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise refuse(422, "malformed_json", "The request is not JSON", f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise invalid(field_error("", document, "the body is not a JSON object"))
    return document


def _validated(model: type[Model], document: JSON) -> Model:
    try:
        return model.model_validate(document)
    except pydantic.ValidationError as error:
        raise invalid_fields(error, model) from error
