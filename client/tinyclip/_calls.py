"""What a call is: one description, sent by the sync and the async client alike.

A resource file (`_jobs.py`, …) describes each call once, as a function that returns a `Call`. `sync_method` and `async_method`
turn the description into a method of the client that sends it; the method keeps the description's signature and docstring.
"""

import functools
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from tinyclip._upload import Upload

if TYPE_CHECKING:
    from tinyclip._transport import AsyncTransport, Transport

P = ParamSpec("P")
T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)

QueryValue = str | int | bool | Sequence[str] | None


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request and how to read its answer."""

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
    """Seconds that the server may hold the request before it answers (a long poll)."""


class Resource:
    """A group of methods of the sync client."""

    def __init__(self, transport: "Transport") -> None:
        self._transport = transport


class AsyncResource:
    """A group of methods of the async client."""

    def __init__(self, transport: "AsyncTransport") -> None:
        self._transport = transport


class sync_method(Generic[P, T]):
    """The method of a `Resource` that sends what `describe` describes."""

    def __init__(self, describe: Callable[P, Call[T]]) -> None:
        self._describe = describe

    def __get__(self, resource: Resource, owner: type[Resource]) -> Callable[P, T]:
        @functools.wraps(self._describe)
        def send(*args: P.args, **kwargs: P.kwargs) -> T:
            return resource._transport.send(self._describe(*args, **kwargs))

        return send


class async_method(Generic[P, T]):
    """The method of an `AsyncResource` that sends what `describe` describes."""

    def __init__(self, describe: Callable[P, Call[T]]) -> None:
        self._describe = describe

    def __get__(self, resource: AsyncResource, owner: type[AsyncResource]) -> Callable[P, Awaitable[T]]:
        @functools.wraps(self._describe)
        async def send(*args: P.args, **kwargs: P.kwargs) -> T:
            return await resource._transport.send(self._describe(*args, **kwargs))

        return send


def path(*parts: str | int) -> str:
    """`/v1/…` of parts that may hold any character."""
    return "/v1/" + "/".join(quote(str(part), safe="") for part in parts)


def as_model(model: type[ModelT]) -> Callable[[httpx.Response], ModelT]:
    """Reads a JSON answer as one of our schemas."""
    return lambda response: model.model_validate_json(response.content)


def nothing(response: httpx.Response) -> None:
    """Reads an answer that has nothing to say."""


def once(key: str | None = None) -> dict[str, str]:
    """The header that makes a repeated POST the same POST."""
    return {"Idempotency-Key": key or uuid.uuid4().hex}
