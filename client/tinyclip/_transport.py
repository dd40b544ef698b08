"""How a call travels. Peel one layer at a time: `send` retries, `_once` maps errors, httpx does the rest.

`Transport` and `AsyncTransport` differ only in waiting; what is sent and how an answer is read is shared by both.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeVar

import httpx
import pydantic
import tenacity

from tinyclip._calls import Call
from tinyclip._retry import Retries, retry_after
from tinyclip.errors import CannotReachServer, ProblemError, error_for
from tinyclip.schemas import Problem

T = TypeVar("T")

_KEEPALIVE_PATIENCE = 60.0
"""Seconds of silence after which a stream counts as broken; the server comments more often than that."""


class _Shared:
    """What both transports know."""

    def __init__(self, base_url: str, token: str | None, timeout: float, retries: Retries) -> None:
        self.base_url = base_url.rstrip("/")
        self.retries = retries
        self._timeout = timeout
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def _arguments(self, call: Call[Any], *, silence: float | None = None) -> dict[str, Any]:
        """A call as httpx takes it."""
        url = call.path if "://" in call.path else self.base_url + call.path
        query = {name: value for name, value in call.query.items() if value is not None}
        read = silence or self._timeout + call.wait
        return {
            "method": call.method, "url": url, "params": query or None, "json": call.body,
            "headers": {**self._headers, **_upload_headers(call), **call.headers},
            "timeout": httpx.Timeout(self._timeout, read=read),
        }


class Transport(_Shared):
    """Sends calls and waits for their answers."""

    def __init__(
        self, base_url: str, token: str | None, timeout: float, retries: Retries, transport: httpx.BaseTransport | None
    ) -> None:
        super().__init__(base_url, token, timeout, retries)
        self._http = httpx.Client(transport=transport)

    def send(self, call: Call[T], retries: Retries | None = None) -> T:
        """Sends one call, again where that may help. Raises a `TinyClipError`."""
        return self.answer(call, retries)[0]

    def answer(self, call: Call[T], retries: Retries | None = None) -> tuple[T, httpx.Response]:
        """The answer as read, and as it came."""
        return tenacity.Retrying(**(retries or self.retries).policy())(self._once, call)

    @contextlib.contextmanager
    def stream(self, call: Call[Any]) -> Iterator[httpx.Response]:
        """The answer's body piece by piece; tried once, since only the reader knows where to go on."""
        with _mapped(self.base_url):
            request = self._arguments(call, silence=_KEEPALIVE_PATIENCE)
            with self._http.stream(**request) as response:
                if not response.is_success:
                    response.read()
                    raise problem_of(response)
                yield response

    def close(self) -> None:
        self._http.close()

    def _once(self, call: Call[T]) -> tuple[T, httpx.Response]:
        content = None if call.upload is None else call.upload.pieces()
        with _mapped(self.base_url):
            response = self._http.request(**self._arguments(call), content=content)
        return _read(call, response), response


class AsyncTransport(_Shared):
    """Sends calls and awaits their answers."""

    def __init__(
        self, base_url: str, token: str | None, timeout: float, retries: Retries, transport: httpx.AsyncBaseTransport | None
    ) -> None:
        super().__init__(base_url, token, timeout, retries)
        self._http = httpx.AsyncClient(transport=transport)

    async def send(self, call: Call[T], retries: Retries | None = None) -> T:
        """Sends one call, again where that may help. Raises a `TinyClipError`."""
        return (await self.answer(call, retries))[0]

    async def answer(self, call: Call[T], retries: Retries | None = None) -> tuple[T, httpx.Response]:
        """The answer as read, and as it came."""
        return await tenacity.AsyncRetrying(**(retries or self.retries).policy())(self._once, call)

    @contextlib.asynccontextmanager
    async def stream(self, call: Call[Any]) -> AsyncIterator[httpx.Response]:
        """The answer's body piece by piece; tried once, since only the reader knows where to go on."""
        with _mapped(self.base_url):
            request = self._arguments(call, silence=_KEEPALIVE_PATIENCE)
            async with self._http.stream(**request) as response:
                if not response.is_success:
                    await response.aread()
                    raise problem_of(response)
                yield response

    async def close(self) -> None:
        await self._http.aclose()

    async def _once(self, call: Call[T]) -> tuple[T, httpx.Response]:
        content = None if call.upload is None else call.upload.pieces_async()
        with _mapped(self.base_url):
            response = await self._http.request(**self._arguments(call), content=content)
        return _read(call, response), response


def _upload_headers(call: Call[Any]) -> dict[str, str]:
    if call.upload is None:
        return {}
    return {"Content-Type": call.upload.media_type, "Content-Length": str(call.upload.bytes)}


def problem_of(response: httpx.Response) -> ProblemError:
    """The error that an unsuccessful answer stands for, whether or not it is a problem document."""
    try:
        problem = Problem.model_validate_json(response.content)
    except pydantic.ValidationError:
        # A proxy answered, or something that is not ours.
        text = " ".join(response.text.split())[:200]
        problem = Problem(
            title=response.reason_phrase or "Error", status=response.status_code, code=f"http_{response.status_code}",
            detail=f"{response.request.url} answered {response.status_code}: {text or 'nothing more'}",
        )
    return error_for(problem, retry_after(response))


def _read(call: Call[T], response: httpx.Response) -> T:
    # 304 is a long poll's way to say that nothing has changed.
    if not response.is_success and response.status_code != 304:
        raise problem_of(response)
    try:
        return call.read(response)
    except pydantic.ValidationError as unreadable:
        reason = f"the answer is not TinyCLIP's ({unreadable.error_count()} errors)"
        raise CannotReachServer(str(response.request.url), reason) from unreadable


@contextlib.contextmanager
def _mapped(base_url: str) -> Iterator[None]:
    """Turns httpx's errors into ours."""
    try:
        yield
    except httpx.TimeoutException as late:
        raise CannotReachServer(base_url, f"no answer in time ({type(late).__name__})") from late
    except (httpx.TransportError, httpx.InvalidURL) as broken:
        raise CannotReachServer(base_url, str(broken) or type(broken).__name__) from broken
