"""HTTP and nothing else: sends a `Call`, repeats it where that may help, raises the errors of `tinyclip.errors`."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeVar

import httpx
import pydantic
import tenacity

from tinyclip._http.backends import Backend
from tinyclip._http.calls import Call
from tinyclip._http.retries import Retries, retry_after
from tinyclip.errors import CannotReachServer, ProblemError, error_for
from tinyclip.schemas import Problem

T = TypeVar("T")

_STREAM_READ_TIMEOUT = 60.0
"""Seconds of silence after which a stream counts as broken; the server sends comments more often than that."""


class Transport:
    """Sends calls to one server. With a `BlockingBackend` its coroutines never suspend."""

    def __init__(self, base_url: str, token: str | None, timeout: float, retries: Retries, backend: Backend) -> None:
        self.base_url = base_url.rstrip("/")
        self.retries = retries
        self.backend = backend
        self.sleep = backend.sleep
        self.close = backend.close
        self._timeout = timeout
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def send(self, call: Call[T], retries: Retries | None = None) -> T:
        """Send one call, with retries. Raises a `TinyClipError`."""
        value, _ = await self.send_with_response(call, retries)
        return value

    async def send_with_response(self, call: Call[T], retries: Retries | None = None) -> tuple[T, httpx.Response]:
        """Send one call and return its value and the response that it was read from."""
        policy = (retries or self.retries).policy()
        return await tenacity.AsyncRetrying(**policy, sleep=self.sleep)(self._send_once, call)

    @contextlib.asynccontextmanager
    async def stream(self, call: Call[Any]) -> AsyncIterator[httpx.Response]:
        """Open a response to be read piece by piece. It is not retried: only the reader knows where to continue."""
        with _mapped_errors(self.base_url):
            async with self.backend.stream(self._arguments(call, read_timeout=_STREAM_READ_TIMEOUT)) as response:
                if not response.is_success:
                    await self.backend.read(response)
                    raise problem_of(response)
                yield response

    async def _send_once(self, call: Call[T]) -> tuple[T, httpx.Response]:
        with _mapped_errors(self.base_url):
            response = await self.backend.request(self._arguments(call), call.upload)
        return _read(call, response), response

    def _arguments(self, call: Call[Any], *, read_timeout: float | None = None) -> dict[str, Any]:
        """Return httpx's arguments for a call."""
        query = {name: value for name, value in call.query.items() if value is not None}
        upload = call.upload
        about_upload = {"Content-Type": upload.media_type, "Content-Length": str(upload.bytes)} if upload is not None else {}
        return {
            "method": call.method,
            "url": call.path if "://" in call.path else self.base_url + call.path,
            "params": query or None,
            "json": call.body,
            "headers": {**self._headers, **about_upload, **call.headers},
            "timeout": httpx.Timeout(self._timeout, read=read_timeout or self._timeout + call.wait),
        }


def problem_of(response: httpx.Response) -> ProblemError:
    """Return the error of an unsuccessful response, whether or not it is a problem document."""
    try:
        problem = Problem.model_validate_json(response.content)
    except pydantic.ValidationError:
        # Not from our server: a proxy, for example.
        text = " ".join(response.text.split())[:200]
        problem = Problem(
            title=response.reason_phrase or "Error", status=response.status_code, code=f"http_{response.status_code}",
            detail=f"{response.request.url} answered {response.status_code}: {text or 'nothing more'}",
        )
    return error_for(problem, retry_after(response))


def _read(call: Call[T], response: httpx.Response) -> T:
    # 304 ends a long poll during which nothing has changed.
    if not response.is_success and response.status_code != 304:
        raise problem_of(response)
    try:
        return call.read(response)
    except pydantic.ValidationError as error:
        reason = f"the answer is not TinyCLIP's ({error.error_count()} errors)"
        raise CannotReachServer(str(response.request.url), reason) from error


@contextlib.contextmanager
def _mapped_errors(base_url: str) -> Iterator[None]:
    """Raise httpx's errors as ours."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise CannotReachServer(base_url, f"no answer in time ({type(error).__name__})") from error
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise CannotReachServer(base_url, str(error) or type(error).__name__) from error
