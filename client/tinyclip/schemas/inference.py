"""Queries to deployments and their responses: zero-shot classification and embeddings."""

from typing import Annotated, Any, Literal

from pydantic import Field

from tinyclip.schemas._base import JSON, EncodedImage, Line, LongText, OpenObject, Request, Response
from tinyclip.schemas.problems import FieldError

MAX_QUERY_BYTES = 64 << 20
"""Largest body of a query, at a deployment and at the control plane, which forwards it."""


class ZeroShotRequest(Request):
    model: Line | None = None
    """The model of a deployment with several; None: the deployment's own, or its canary for a share of the queries."""
    image: EncodedImage | None = None
    images: Annotated[list[EncodedImage], Field(min_length=1, max_length=256)] | None = None
    labels: Annotated[list[LongText], Field(min_length=1, max_length=10_000, fail_fast=True)] | None = None
    label_set: Line | None = None
    """A registered label set, instead of labels and templates."""
    templates: list[LongText] = Field(default=["{}"], min_length=1, max_length=200)
    top_k: int = Field(default=5, ge=1)
    on_error: Literal["fail", "skip"] = "fail"


class LabelScore(Response):
    label: str
    score: float


class ZeroShotResponse(Response):
    results: list[list[LabelScore] | None]
    """None for an image that was skipped."""
    model: str
    errors: list[FieldError] = []
    """Why images were skipped, with `on_error: skip`."""


MOST_INPUTS = 2048
"""Inputs of one request for embeddings, as in OpenAI's API."""

_TEXT_SCHEMA: JSON = {"type": "string", "maxLength": 64 << 20}
_PART_SCHEMA: JSON = {
    "type": "object", "properties": {"text": _TEXT_SCHEMA, "image": _TEXT_SCHEMA}, "additionalProperties": False
}  # fmt: skip
_ONE_SCHEMA: JSON = {"anyOf": [_TEXT_SCHEMA, _PART_SCHEMA]}
_INPUT_SCHEMA: JSON = {
    "anyOf": [_TEXT_SCHEMA, _PART_SCHEMA, {"type": "array", "minItems": 1, "maxItems": MOST_INPUTS, "items": _ONE_SCHEMA}]
}


class EmbeddingPart(Request):
    """One input with its modality: exactly one of the two."""

    text: LongText | None = None
    image: EncodedImage | None = None


class EmbeddingsRequest(Request):
    """OpenAI's request, with images: strings have the `modality`, parts name theirs, messages are chat messages."""

    input: Annotated[Any, Field(json_schema_extra=_INPUT_SCHEMA)] = None
    """A text or an image, an `EmbeddingPart`, or a list of them."""
    messages: Annotated[list[OpenObject], Field(min_length=1, max_length=MOST_INPUTS)] | None = None
    """Instead of `input`; each `text` and `image_url` part of their content becomes an embedding, in order."""
    modality: Literal["text", "image"] = "text"
    encoding_format: Literal["float", "base64"] = "float"
    on_error: Literal["fail", "skip"] = "fail"
    dimensions: int | None = None
    """One of the sizes that the model was trained for (`embedding_sizes` of its version); None: all numbers."""
    model: Line | None = None
    user: Line | None = None
    """Accepted for compatibility with OpenAI; not used."""


class Embedding(Response):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str | None
    """L2-normalised; with `encoding_format: base64` little-endian float32 bytes; None for an image that was skipped."""


class EmbeddingsUsage(Response):
    prompt_tokens: int = 0
    total_tokens: int = 0


class EmbeddingsResponse(Response):
    """OpenAI's response, with errors."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage = EmbeddingsUsage()
    errors: list[FieldError] = []
    """Why images were skipped, with `on_error: skip`."""
