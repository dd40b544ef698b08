"""Embedding queries in every accepted shape, read and checked, and their answer in OpenAI's shape."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson
from pydantic import Field
from starlette.requests import Request as HttpRequest
from tinyclip.schemas import JSON, EmbeddingPart, EmbeddingsRequest, FieldError, Request
from tinyclip.schemas._base import Line, LongText
from tinyclip.schemas.inference import MOST_INPUTS

from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import field_error, invalid_input
from tinyclip_workers.serving.queries.bodies import (
    Parts,
    form_document,
    form_images,
    is_form,
    read_form_query,
    read_query,
    validated,
)
from tinyclip_workers.serving.queries.inputs import MAX_IMAGES, Images, check_texts, form_image_pointers
from tinyclip_workers.types import ImageInput, Matrix

MAX_INPUTS = MOST_INPUTS

Modality = Literal["text", "image"]


@dataclass(frozen=True)
class EmbeddingInput:
    """One text or image to embed, and the JSON pointer to it."""

    modality: Modality
    value: ImageInput
    pointer: str


@dataclass(frozen=True)
class EmbeddingsQuery:
    inputs: Sequence[EmbeddingInput]
    encoding: Literal["float", "base64"] = "float"
    skip_bad_images: bool = False
    dimensions: int | None = None
    model: str | None = None
    """The model to use; None: the deployment's own."""

    @property
    def texts(self) -> list[str]:
        return [str(item.value) for item in self.inputs if item.modality == "text"]

    @property
    def images(self) -> Images:
        images = [item for item in self.inputs if item.modality == "image"]
        return Images([item.value for item in images], [item.pointer for item in images])


@dataclass(frozen=True)
class EmbeddingRows:
    """One row per input, None for an image that was skipped, and the errors of the skipped images."""

    rows: Sequence[Matrix | None]
    errors: list[FieldError]


class _EmbeddingsForm(Request):
    """The fields of a multipart form other than its files."""

    input: list[LongText] = Field(default=[], max_length=MAX_INPUTS)
    encoding_format: Literal["float", "base64"] = "float"
    on_error: Literal["fail", "skip"] = "fail"
    dimensions: int | None = None
    model: Line | None = None


async def read_embeddings(request: HttpRequest, options: ServingOptions) -> EmbeddingsQuery:
    """Raises ProblemError naming every invalid field."""
    if is_form(request):
        return await read_form_query(request, options, _form_query)
    return await read_query(request, options, embeddings_query)


def embeddings_query(document: JSON) -> EmbeddingsQuery:
    """Raises ProblemError."""
    _reject_token_ids(document.get("input"))
    fields = validated(EmbeddingsRequest, document)
    if (fields.input is None) == (fields.messages is None):
        raise invalid_input(FieldError(pointer="/input", message="this field is required: give input, or messages"))
    if fields.messages is not None:
        inputs = _message_inputs(fields.messages)
    elif isinstance(fields.input, list):
        _expect_few(len(fields.input))
        inputs = [_input(item, f"/input/{i}", fields.modality) for i, item in enumerate(fields.input)]
    else:
        inputs = [_input(fields.input, "/input", fields.modality)]
    return _checked_query(inputs, fields)


def _reject_token_ids(value: Any) -> None:
    """Raises ProblemError for texts sent as token ids, as OpenAI's clients may: those of another vocabulary."""
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, int) or (isinstance(first, list) and first and isinstance(first[0], int)):
        message = "holds token numbers; send texts (LangChain: check_embedding_ctx_length=False)"
        raise invalid_input(field_error("/input", value, message))


def _input(item: Any, pointer: str, modality: Modality) -> EmbeddingInput:
    """Read a string of the request's modality, or an object that names its own."""
    if isinstance(item, str):
        return EmbeddingInput(modality, item, pointer)
    if not isinstance(item, dict):
        raise invalid_input(field_error(pointer, item, 'give a string, {"text": …} or {"image": …}'))
    part = validated(EmbeddingPart, item, at=pointer)
    if (part.text is None) == (part.image is None):
        raise invalid_input(field_error(pointer, item, "give exactly one of text and image"))
    if part.text is not None:
        return EmbeddingInput("text", part.text, f"{pointer}/text")
    return EmbeddingInput("image", part.image or "", f"{pointer}/image")


def _message_inputs(messages: list[JSON]) -> list[EmbeddingInput]:
    """Return the text and image parts of chat messages, each an input of its own."""
    inputs = []
    for i, message in enumerate(messages):
        content, pointer = message.get("content"), f"/messages/{i}/content"
        if isinstance(content, str):
            inputs.append(EmbeddingInput("text", content, pointer))
        elif isinstance(content, list) and content:
            _expect_few(len(inputs) + len(content))
            inputs += [_message_part(part, f"{pointer}/{j}") for j, part in enumerate(content)]
        else:
            raise invalid_input(field_error(pointer, content, "give a text or a list of parts"))
    return inputs


def _message_part(part: Any, pointer: str) -> EmbeddingInput:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return EmbeddingInput("text", part["text"], pointer)
    if kind == "image_url":
        link = part.get("image_url")
        url = link.get("url") if isinstance(link, dict) else link
        if isinstance(url, str):
            return EmbeddingInput("image", url, f"{pointer}/image_url")
    message = 'cannot be embedded; give {"type": "text", "text": …} or {"type": "image_url", "image_url": {"url": …}}'
    raise invalid_input(field_error(pointer, part, message))


def _form_query(parts: Parts) -> EmbeddingsQuery:
    fields = validated(_EmbeddingsForm, form_document(parts, repeated=("input",)))
    images = form_images(parts)
    pointers = form_image_pointers(len(images))
    inputs = [EmbeddingInput("image", image, pointer) for image, pointer in zip(images, pointers, strict=True)]
    inputs += [EmbeddingInput("text", text, f"/input/{i}") for i, text in enumerate(fields.input)]
    if not inputs:
        raise invalid_input(field_error("/image", 0, "give files under the name image, or texts under the name input"))
    return _checked_query(inputs, fields)


def _checked_query(inputs: list[EmbeddingInput], fields: EmbeddingsRequest | _EmbeddingsForm) -> EmbeddingsQuery:
    """Raises ProblemError for too many inputs, or invalid texts."""
    query = EmbeddingsQuery(inputs, fields.encoding_format, fields.on_error == "skip", fields.dimensions, fields.model)
    _expect_few(len(inputs), len(query.images.images))
    check_texts([(item.pointer, str(item.value)) for item in inputs if item.modality == "text"])
    return query


def _expect_few(inputs: int, images: int = 0) -> None:
    """Raises ProblemError for too many inputs."""
    if not 1 <= inputs <= MAX_INPUTS or images > MAX_IMAGES:
        limits = f"1 to {MAX_INPUTS:,} in one request, at most {MAX_IMAGES} of them images"
        raise invalid_input(field_error("/input", inputs, f"{inputs:,} inputs; give {limits}"))


def embeddings_response(query: EmbeddingsQuery, embeddings: EmbeddingRows, model: str) -> bytes:
    """Return OpenAI's JSON: L2-normalised embeddings as numbers or as base64 of little-endian float32."""
    data = [
        {"object": "embedding", "index": index, "embedding": None if row is None else _encoded(row, query.encoding)}
        for index, row in enumerate(embeddings.rows)
    ]
    tokens = sum(len(text.split()) for text in query.texts)
    answer: JSON = {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    if embeddings.errors:
        answer["errors"] = [error.model_dump() for error in embeddings.errors]
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _encoded(row_E: Matrix, encoding: str) -> Matrix | str:
    if encoding == "base64":
        return base64.b64encode(row_E.astype("<f4").tobytes()).decode()
    return np.ascontiguousarray(row_E, np.float32)
