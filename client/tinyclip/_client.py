"""The sync and the async client of TinyCLIP's API."""

from types import TracebackType
from typing import Self, TypeVar

import httpx

from tinyclip._http.backends import AsyncBackend, BlockingBackend, run
from tinyclip._http.calls import Call
from tinyclip._http.retries import Retries
from tinyclip._http.transport import Transport
from tinyclip._profiles import Profile, current
from tinyclip._resources import cluster
from tinyclip._resources.datasets import AsyncDatasets, Datasets
from tinyclip._resources.deployments import AsyncDeployments, Deployments
from tinyclip._resources.evaluations import AsyncEvaluations, Evaluations
from tinyclip._resources.indexes import AsyncIndexes, Indexes
from tinyclip._resources.jobs import AsyncJobs, Jobs
from tinyclip._resources.models import AsyncModels, Models
from tinyclip._resources.searches import AsyncSearches, Searches
from tinyclip._resources.tokens import AsyncTokens, Tokens
from tinyclip.schemas import Cluster

T = TypeVar("T")


class Client:
    """TinyCLIP's API. Without `url` and `token` they come from `TINYCLIP_URL`, `TINYCLIP_TOKEN` or the profile file.

    >>> with Client() as client:
    ...     job = client.jobs.wait(client.jobs.submit(spec).id)
    ...     client.models.pull(job.name, "student")
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout: float = 30.0,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        profile = _profile(url, token)
        self.url, self.retries = profile.url, retries or Retries()
        self._transport = Transport(profile.url, profile.token, timeout, self.retries, BlockingBackend(transport))
        self.jobs = Jobs(self._transport)
        self.datasets = Datasets(self._transport)
        self.models = Models(self._transport)
        self.deployments = Deployments(self._transport)
        self.indexes = Indexes(self._transport)
        self.evaluations = Evaluations(self._transport)
        self.searches = Searches(self._transport)
        self.tokens = Tokens(self._transport)

    def cluster(self) -> Cluster:
        """Return the nodes of the Ray cluster, and what of the project runs on them."""
        return self.send(cluster.get())

    def send(self, call: Call[T], *, retries: Retries | None = None) -> T:
        """Send a call and return its value."""
        return run(self._transport.send(call, retries))

    def send_with_response(self, call: Call[T], *, retries: Retries | None = None) -> tuple[T, httpx.Response]:
        """Send a call and return its value and the response that it was read from."""
        return run(self._transport.send_with_response(call, retries))

    def close(self) -> None:
        """Close the connections."""
        run(self._transport.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class AsyncClient:
    """TinyCLIP's API for asyncio; see `Client`."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout: float = 30.0,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        profile = _profile(url, token)
        self.url, self.retries = profile.url, retries or Retries()
        self._transport = Transport(profile.url, profile.token, timeout, self.retries, AsyncBackend(transport))
        self.jobs = AsyncJobs(self._transport)
        self.datasets = AsyncDatasets(self._transport)
        self.models = AsyncModels(self._transport)
        self.deployments = AsyncDeployments(self._transport)
        self.indexes = AsyncIndexes(self._transport)
        self.evaluations = AsyncEvaluations(self._transport)
        self.searches = AsyncSearches(self._transport)
        self.tokens = AsyncTokens(self._transport)

    async def cluster(self) -> Cluster:
        """Return the nodes of the Ray cluster, and what of the project runs on them."""
        return await self.send(cluster.get())

    async def send(self, call: Call[T], *, retries: Retries | None = None) -> T:
        """Send a call and return its value."""
        return await self._transport.send(call, retries)

    async def send_with_response(self, call: Call[T], *, retries: Retries | None = None) -> tuple[T, httpx.Response]:
        """Send a call and return its value and the response that it was read from."""
        return await self._transport.send_with_response(call, retries)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _profile(url: str | None, token: str | None) -> Profile:
    return Profile(url=url, token=token) if url is not None else current(token=token)
