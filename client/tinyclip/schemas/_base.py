"""Base classes of the wire schemas."""

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints


def _rfc3339(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Timestamp = Annotated[datetime, PlainSerializer(_rfc3339, return_type=str, when_used="json")]
"""A moment in UTC; RFC 3339 with milliseconds on the wire."""

JSON = dict[str, Any]

# Bounds of what a request may contain, far above what is useful: a request is refused before much work is done for it.
Key = Annotated[str, StringConstraints(max_length=200)]
"""A short text, such as the name of a field, a file extension or a label."""
Line = Annotated[str, StringConstraints(max_length=1000)]
"""A text of one line: a class name, a template, a model."""
LongText = Annotated[str, StringConstraints(max_length=100_000)]
"""A text to embed; those that are longer than a model reads are refused later, with what to do."""
EncodedImage = Annotated[str, StringConstraints(max_length=64 << 20)]
"""An image in base64 or as a data URI, or its URL."""
Keys = Annotated[list[Key], Field(max_length=100, fail_fast=True)]
Lines = Annotated[list[Line], Field(max_length=100_000, fail_fast=True)]
Labels = Annotated[dict[Key, Line], Field(max_length=200)]
OpenObject = Annotated[dict[Key, Any], Field(max_length=1000)]
"""An object of any content; its depth and its size are limited with those of the body."""

Item = TypeVar("Item")


class Request(BaseModel):
    """A document that a user writes; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class Response(BaseModel):
    """A document that TinyCLIP writes; readers ignore unknown fields."""

    model_config = ConfigDict(extra="ignore")


class Page(Response, Generic[Item]):
    """One page of a list; `next_page_token` is null on the last."""

    items: list[Item]
    next_page_token: str | None = None
