"""Base classes of the wire schemas."""

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, PlainSerializer


def _rfc3339(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Timestamp = Annotated[datetime, PlainSerializer(_rfc3339, return_type=str, when_used="json")]
"""A moment in UTC; RFC 3339 with milliseconds on the wire."""

JSON = dict[str, Any]

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
