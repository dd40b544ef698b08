"""The two clients: the same methods, waiting in a thread or in a task."""

from types import TracebackType
from typing import Self

import httpx

from tinyclip._deployments import AsyncDeployments, Deployments
from tinyclip._evaluations import AsyncEvaluations, Evaluations
from tinyclip._indexes import AsyncIndexes, Indexes
from tinyclip._jobs import AsyncJobs, Jobs
from tinyclip._models import AsyncModels, Models
from tinyclip._profiles import Profile, current
from tinyclip._retry import Retries
from tinyclip._tokens import AsyncTokens, Tokens
from tinyclip._transport import AsyncTransport, Transport


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
        self._transport = Transport(profile.url, profile.token, timeout, retries or Retries(), transport)
        self.url = profile.url
        self.jobs = Jobs(self._transport)
        self.models = Models(self._transport)
        self.deployments = Deployments(self._transport)
        self.indexes = Indexes(self._transport)
        self.evaluations = Evaluations(self._transport)
        self.tokens = Tokens(self._transport)

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

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
        self._transport = AsyncTransport(profile.url, profile.token, timeout, retries or Retries(), transport)
        self.url = profile.url
        self.jobs = AsyncJobs(self._transport)
        self.models = AsyncModels(self._transport)
        self.deployments = AsyncDeployments(self._transport)
        self.indexes = AsyncIndexes(self._transport)
        self.evaluations = AsyncEvaluations(self._transport)
        self.tokens = AsyncTokens(self._transport)

    async def close(self) -> None:
        """Closes the connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _profile(url: str | None, token: str | None) -> Profile:
    return Profile(url=url, token=token) if url is not None else current(token=token)
