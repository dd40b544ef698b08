"""Actors that keep the teachers loaded and encode shards. A lost actor is replaced, and its shard encoded again."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from tinyclip_workers.reinforcing.progress import ShardCounts

log = logging.getLogger(__name__)

MAX_ACTORS = 1024
MAX_TRIES = 4
"""Times that a shard is begun before the job fails: an actor may be lost because of it."""
POLL_SECONDS = 1.0
PROGRESS_SECONDS = 5.0
"""Time between two requests to all actors for their progress."""
WAIT_LOG_SECONDS = 60.0


@dataclass(frozen=True)
class Failure:
    """The reason why an actor could not do its work."""

    code: str
    message: str
    pointer: str | None = None
    value: Any = None
    retryable: bool = False
    """True if it may succeed later, such as reading from a store."""


class EncodingFailed(Exception):
    """The work failed for a reason that a repetition does not help."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def actor_count(shards: int, resources: dict[str, float], bytes_each: int) -> int:
    """Return the number of actors for a cluster of these resources: one for each GPU, or else for each CPU with memory."""
    if gpus := int(resources.get("GPU", 0)):
        return max(1, min(shards, gpus, MAX_ACTORS))
    fitting = int(resources.get("memory", float("inf")) // max(1, bytes_each)) if "memory" in resources else MAX_ACTORS
    return max(1, min(shards, int(resources.get("CPU", 1)), fitting, MAX_ACTORS))


class EncoderPool:
    """A number of actors, created by `make`, whose methods are `describe`, `encode(shard)` and `done`."""

    def __init__(self, make: Callable[[], Any], size: int) -> None:
        self._make = make
        self._starting: dict[Any, Any] = {}
        """Actors that load the teachers, by the result they are waited for."""
        self._idle: list[Any] = []
        self._working: dict[Any, tuple[Any, int]] = {}
        """Actors and their shards, by the result."""
        self._failed_starts = 0
        """In a row."""
        self._described: Any = None
        for _ in range(size):
            self._start()

    def describe(self, on_wait: Callable[[], None]) -> Any:
        """Return the description of the first actor that has loaded the teachers. Raises EncodingFailed."""
        logged_at = time.monotonic()
        while not self._idle:
            for described in self._started():
                return described
            on_wait()
            if time.monotonic() - logged_at >= WAIT_LOG_SECONDS:
                logged_at = time.monotonic()
                log.info("waiting for an actor with loaded teachers")
        raise AssertionError("describe is called once, first")

    def run(
        self, shards: Sequence[int], on_poll: Callable[[], None], on_progress: Callable[[int], None]
    ) -> Iterator[tuple[int, ShardCounts]]:
        """Encode shards; yields each with its counts when it is done, in any order. Raises EncodingFailed.

        `on_poll` is called about once a second; what it raises ends the work. `on_progress` is called every few seconds with the
        samples that are encoded of the shards in progress.
        """
        todo, tries = list(reversed(shards)), dict.fromkeys(shards, 0)
        asked_at = time.monotonic()
        while todo or self._working:
            while todo and self._idle:
                actor, shard = self._idle.pop(), todo.pop()
                tries[shard] += 1
                self._working[actor.encode.remote(shard)] = actor, shard
            done, _ = ray.wait([*self._working, *self._starting], timeout=POLL_SECONDS)
            for result in [one for one in done if one in self._working]:
                actor, shard = self._working.pop(result)
                counts = self._result(result, actor)
                if isinstance(counts, Failure):
                    log.warning("shard %d: %s", shard, counts.message)
                    if not counts.retryable or tries[shard] == MAX_TRIES:
                        raise EncodingFailed(counts)
                    todo.append(shard)
                else:
                    yield shard, counts
            for _ in self._started():
                pass
            if time.monotonic() - asked_at >= PROGRESS_SECONDS:
                asked_at = time.monotonic()
                on_progress(self._samples_done())
            on_poll()

    def close(self) -> None:
        """Stop the actors."""
        for actor in [*self._starting.values(), *self._idle, *(actor for actor, _ in self._working.values())]:
            ray.kill(actor)
        self._starting, self._idle, self._working = {}, [], {}

    def _start(self) -> None:
        actor = self._make()
        self._starting[actor.describe.remote()] = actor

    def _started(self) -> Iterator[Any]:
        """Yield the descriptions of actors that have loaded the teachers since, which are then idle. Raises EncodingFailed."""
        if not self._starting:
            return
        done, _ = ray.wait(list(self._starting), timeout=0 if self._idle or self._working else POLL_SECONDS)
        for result in done:
            actor = self._starting.pop(result)
            described = self._result(result, actor)
            if isinstance(described, Failure):
                self._failed_starts += 1
                if not described.retryable or self._failed_starts == MAX_TRIES:
                    raise EncodingFailed(described)
                continue
            self._failed_starts = 0
            if described != (self._described or described):
                message = "nodes of the cluster have different weights of a teacher under the same address"
                raise EncodingFailed(Failure("unusable_teacher", f"{message}; give all of them the same file"))
            self._described = described
            yield described

    def _result(self, result: Any, actor: Any) -> Any:
        """Return the result of an actor, which is idle then; a failure if it was lost, and then another one is started."""
        try:
            value = ray.get(result)
        except RayTaskError:
            raise  # a fault of ours
        except RayError as error:
            reason = str(error).strip().splitlines()[0]
            log.warning("an actor was lost: %s", reason)
            ray.kill(actor)
            self._start()
            return Failure("actor_lost", f"an actor was lost: {reason}", retryable=True)
        self._idle.append(actor)
        return value

    def _samples_done(self) -> int:
        """Return the samples of unfinished shards that are encoded; actors that do not answer at once count none."""
        asked = [actor.done.remote() for actor, _ in self._working.values()]
        answered, _ = ray.wait(asked, num_returns=len(asked), timeout=POLL_SECONDS) if asked else ([], [])
        total = 0
        for one in answered:
            try:
                total += ray.get(one)
            except RayError:  # its loss is noticed by the result of its shard
                continue
        return total
