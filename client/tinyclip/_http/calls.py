"""Descriptions of requests, sent by the sync and the async client alike."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from tinyclip._http.uploads import Upload

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)

QueryValue = str | int | bool | Sequence[str] | None


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request and how to read its response.

    >>> client.send(Call("GET", "/v1/version", lambda response: response.json()))
    """

    method: str
    path: str
    """Below the server's URL, or an absolute URL (a deployment's endpoint)."""
    read: Callable[[httpx.Response], T]
    query: Mapping[str, QueryValue] = field(default_factory=dict)
    """Entries that are None are not sent."""
    body: Any = None
    """Sent as JSON."""
    upload: Upload | None = None
    """Sent as it is, instead of a JSON body."""
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float = 0.0
    """Seconds for which the server may hold the request before it responds (a long poll)."""


def path(*parts: str | int) -> str:
    """Return `/v1/…` of parts that may hold any character."""
    return "/v1/" + "/".join(quote(str(part), safe="") for part in parts)


def as_model(model: type[ModelT]) -> Callable[[httpx.Response], ModelT]:
    """Return a reader of JSON responses that validates them as `model`."""
    return lambda response: model.model_validate_json(response.content)


def no_content(response: httpx.Response) -> None:
    """Ignore the body of a response."""


def idempotency_header(key: str | None = None) -> dict[str, str]:
    """Return the header that makes a repeated request the same request; without `key` a random one is drawn."""
    return {"Idempotency-Key": key or uuid.uuid4().hex}
