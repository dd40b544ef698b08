"""Calls to the artifacts store from the event loop: limited in time, in few threads that nothing else uses.

A store that accepts requests and never answers thus delays only the queries that need something from it, and these for a limited
time. Decoding and searching have threads of their own.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tinyclip.artifacts.remote import StoreUnavailable
from tinyclip.artifacts.store import ArtifactsStore

from tinyclip_workers.runtime.filesystems import open_own_store
from tinyclip_workers.serving.problems import ProblemError, problem_error

CALL_SECONDS = 10.0
"""Time limit of one call to a remote store."""
THREADS = 8

T = TypeVar("T")

_threads = ThreadPoolExecutor(THREADS, "store")


def open_limited_store(root: str) -> ArtifactsStore:
    """Return a store whose calls end after `CALL_SECONDS`."""
    return open_own_store(root, limit_s=CALL_SECONDS)


async def call_store(call: Callable[[], T]) -> T:
    """Run a call in a thread. Raises ProblemError (503) if the store fails, does not answer in time, or no thread is free."""
    try:
        async with asyncio.timeout(CALL_SECONDS):
            return await in_store_thread(call)
    except (StoreUnavailable, TimeoutError) as error:
        raise store_unavailable() from error


async def in_store_thread(call: Callable[[], T]) -> T:
    """Run a call without a time limit of its own, such as downloading a segment of an index."""
    return await asyncio.get_running_loop().run_in_executor(_threads, call)


def store_unavailable() -> ProblemError:
    title, detail = "The store is unavailable", "the artifacts store does not answer; try again in a few seconds"
    return problem_error(503, "store_unavailable", title, detail, retryable=True, headers={"Retry-After": "5"})
