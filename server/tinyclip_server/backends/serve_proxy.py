"""Requests that are forwarded to deployments on Ray Serve, with a limit of how many at once."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import cached_property

import httpx

from tinyclip_server.problems import GatewayTimeout, TooManyRequests, Unavailable

AT_ONCE = 128
"""Forwarded requests of this server at once."""
PROJECT_AT_ONCE = 64
"""The same of one project; a replica computes as many."""
ANSWER_SECONDS = 90.0
"""Time until an answer begins, the upload included. A replica answers within 30 s, Serve's proxy within 60."""
TIMEOUT = httpx.Timeout(65.0, connect=3.0)
LIMITS = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=16)
UNREACHABLE = "Ray Serve, which answers the queries of deployments, cannot be reached; try again"


class ServeProxy:
    """The client of deployments. For one event loop."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._transport = transport
        self._running = Counter[str]()
        """Requests by project."""

    @contextlib.contextmanager
    def turn(self, project: str) -> Iterator[None]:
        """Count a request while it runs. Raises TooManyRequests."""
        if self._running.total() >= AT_ONCE or self._running[project] >= PROJECT_AT_ONCE:
            raise TooManyRequests("too many queries are being forwarded; try again", code="too_many_queries", retry_after=1)
        self._running[project] += 1
        try:
            yield
        finally:
            self._running[project] -= 1
            if not self._running[project]:
                del self._running[project]

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: AsyncIterator[bytes] | None
    ) -> httpx.Response:
        """Send a request and return the answer, whose body is not read yet. Raises Unavailable, GatewayTimeout."""
        request = self._http.build_request(method, url, headers=headers, content=body)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._http.send(request, stream=True)
        except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unavailable(UNREACHABLE, code="serve_unavailable", retry_after=2) from error
        except (httpx.TimeoutException, TimeoutError) as error:
            raise GatewayTimeout("the deployment did not answer in time; send fewer or smaller items at once") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Unavailable(UNREACHABLE, code="serve_unavailable", retry_after=2) from error

    async def close(self) -> None:
        if "_http" in self.__dict__:
            await self._http.aclose()

    @cached_property
    def _http(self) -> httpx.AsyncClient:
        """The client, created for the first request: reading the certificates of authorities takes time."""
        return httpx.AsyncClient(
            transport=self._transport, timeout=TIMEOUT, limits=LIMITS, trust_env=False, follow_redirects=False
        )
