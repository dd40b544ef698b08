"""A route: its path, who answers, and what OpenAPI says of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Student

Handler = Callable[["Student", Request], Awaitable[Response]]


@dataclass(frozen=True)
class Described:
    """One route."""

    method: str
    path: str
    handler: Handler
    summary: str
    body: type[BaseModel] | None = None
    """Of a JSON request."""
    form: tuple[str, ...] = ()
    """Fields of a multipart request, beside files named `image`; empty: the route takes no form."""
    answer: Any = None
    """Type of a JSON answer; null: no body, or one that is not JSON."""
    status: int = 200
