"""What is to be embedded: texts and images in one list, whatever shape they came in, and the answer in OpenAI's."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson
from pydantic import Field
from starlette.requests import Request as HttpRequest
from tinyclip.schemas import JSON, EmbeddingPart, EmbeddingsRequest, FieldError, Request

from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.queries.bodies import (
    Parts,
    form_document,
    form_images,
    is_form,
    read_document,
    read_form,
    validated,
)
from tinyclip_workers.serving.queries.parsing import MAX_IMAGES, Images, check_texts_at, image_pointers
from tinyclip_workers.serving.queries.problems import Refusal, field_error, invalid
from tinyclip_workers.types import ImageInput, Matrix

MAX_INPUTS = 2048
"""Of one embeddings request, as OpenAI has it."""

Kind = Literal["text", "image"]


@dataclass(frozen=True)
class Input:
    """One thing to embed, and where it was in the request."""

    kind: Kind
    value: ImageInput
    pointer: str


@dataclass(frozen=True)
class EmbeddingsQuery:
    inputs: Sequence[Input]
    encoding: Literal["float", "base64"] = "float"
    skip_bad_images: bool = False
    dimensions: int | None = None
    model: str | None = None
    """To ask, of several; null: the deployment's own."""

    @property
    def texts(self) -> list[str]:
        return [str(item.value) for item in self.inputs if item.kind == "text"]

    @property
    def images(self) -> Images:
        images = [item for item in self.inputs if item.kind == "image"]
        return Images([item.value for item in images], [item.pointer for item in images])


@dataclass(frozen=True)
class Embedded:
    """One row an input, null for an image that was skipped."""

    rows: Sequence[Matrix | None]
    errors: list[FieldError]


class _Form(Request):
    input: list[str] = []
    encoding_format: Literal["float", "base64"] = "float"
    on_error: Literal["fail", "skip"] = "fail"
    dimensions: int | None = Field(default=None)
    model: str | None = None


async def read_embeddings(request: HttpRequest, options: ServingOptions) -> EmbeddingsQuery:
    """Raises Refusal naming every field that is wrong."""
    if is_form(request):
        return _from_form(await read_form(request, options))
    return embeddings_query(await read_document(request, options))


def embeddings_query(document: JSON) -> EmbeddingsQuery:
    """Raises Refusal."""
    _expect_no_tokens(document.get("input"))
    asked = validated(EmbeddingsRequest, document)
    if (asked.input is None) == (asked.messages is None):
        raise invalid(FieldError(pointer="/input", message="is missing; give input, or messages"))
    inputs = _of_messages(asked.messages) if asked.messages is not None else _of_input(asked)
    return _checked(EmbeddingsQuery(inputs, asked.encoding_format, asked.on_error == "skip", asked.dimensions, asked.model))


def _expect_no_tokens(given: Any) -> None:
    """OpenAI's clients may send a text as the numbers of its tokens, of a vocabulary that is not ours."""
    first = given[0] if isinstance(given, list) and given else None
    if isinstance(first, int) or (isinstance(first, list) and first and isinstance(first[0], int)):
        message = "holds token numbers; send texts (LangChain: check_embedding_ctx_length=False)"
        raise invalid(field_error("/input", given, message))


def _of_input(asked: EmbeddingsRequest) -> list[Input]:
    if isinstance(asked.input, list):
        return [_given(item, f"/input/{i}", asked.modality) for i, item in enumerate(asked.input)]
    return [_given(asked.input, "/input", asked.modality)]


def _given(item: Any, pointer: str, modality: Kind) -> Input:
    """A string, or an object that says which kind it is."""
    if isinstance(item, str):
        return Input(modality, item, pointer)
    if not isinstance(item, dict):
        raise invalid(field_error(pointer, item, 'give a string, {"text": …} or {"image": …}'))
    part = validated(EmbeddingPart, item, at=pointer)
    if (part.text is None) == (part.image is None):
        raise invalid(field_error(pointer, item, "give exactly one of text and image"))
    if part.text is not None:
        return Input("text", part.text, f"{pointer}/text")
    return Input("image", part.image or "", f"{pointer}/image")


def _of_messages(messages: list[JSON]) -> list[Input]:
    """The text and image parts of chat messages, one embedding each."""
    inputs = []
    for i, message in enumerate(messages):
        content, where = message.get("content"), f"/messages/{i}/content"
        if isinstance(content, str):
            inputs.append(Input("text", content, where))
        elif isinstance(content, list) and content:
            inputs += [_part(part, f"{where}/{j}") for j, part in enumerate(content)]
        else:
            raise invalid(field_error(where, content, "is missing; give a text or a list of parts"))
    return inputs


def _part(part: Any, pointer: str) -> Input:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return Input("text", part["text"], pointer)
    if kind == "image_url":
        link = part.get("image_url")
        url = link.get("url") if isinstance(link, dict) else link
        if isinstance(url, str):
            return Input("image", url, f"{pointer}/image_url")
    message = 'cannot be embedded; give {"type": "text", "text": …} or {"type": "image_url", "image_url": {"url": …}}'
    raise invalid(field_error(pointer, part, message))


def _from_form(parts: Parts) -> EmbeddingsQuery:
    asked = validated(_Form, form_document(parts, several=("input",)))
    images = form_images(parts)
    inputs = [Input("image", image, at) for image, at in zip(images, image_pointers(len(images)), strict=True)]
    inputs += [Input("text", text, f"/input/{i}") for i, text in enumerate(asked.input)]
    if not inputs:
        raise invalid(field_error("/image", 0, "give files under the name image, or texts under the name input"))
    return _checked(EmbeddingsQuery(inputs, asked.encoding_format, asked.on_error == "skip", asked.dimensions, asked.model))


def _checked(query: EmbeddingsQuery) -> EmbeddingsQuery:
    images = len(query.images.images)
    if not 1 <= len(query.inputs) <= MAX_INPUTS or images > MAX_IMAGES:
        most = f"1 to {MAX_INPUTS:,} in one request, at most {MAX_IMAGES} of them images"
        raise invalid(field_error("/input", len(query.inputs), f"{len(query.inputs):,} inputs; give {most}"))
    check_texts_at([(item.pointer, str(item.value)) for item in query.inputs if item.kind == "text"])
    return query


def wrong_dimensions(asked: int, embed_dim: int) -> Refusal:
    message = f"the model's embeddings have {embed_dim} numbers; omit dimensions or say that"
    return invalid(field_error("/dimensions", asked, message))


def embeddings_answer(query: EmbeddingsQuery, embedded: Embedded, model: str) -> bytes:
    """OpenAI's answer: L2-normalised embeddings as numbers or as base64 of little-endian float32."""
    data = [
        {"object": "embedding", "index": index, "embedding": None if row is None else _encoded(row, query.encoding)}
        for index, row in enumerate(embedded.rows)
    ]
    tokens = sum(len(text.split()) for text in query.texts)
    answer: JSON = {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    if embedded.errors:
        answer["errors"] = [error.model_dump() for error in embedded.errors]
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _encoded(row_E: Matrix, encoding: str) -> Matrix | str:
    if encoding == "base64":
        return base64.b64encode(row_E.astype("<f4").tobytes()).decode()
    return np.ascontiguousarray(row_E, np.float32)
