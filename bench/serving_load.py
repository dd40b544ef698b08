"""HTTP load for `serving.py`, and the latencies of the answers.

It uses aiohttp and pre-encoded bodies, because it shares the machine with the server: httpx takes 3.5 ms of CPU per request at 32
connections, more than a text takes in any of the servers.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
import orjson


@dataclass
class Answers:
    """The results of one load."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """Seconds of the successful requests; in an open loop from the time at which a request was due."""
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Return the successful requests per second."""
        return len(self.latencies) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        return 1000 * float(np.percentile(self.latencies, percent))


async def closed_loop(url: str, bodies: Sequence[Any], *, concurrency: int, requests: int) -> Answers:
    """Send `requests` requests with the bodies in turn, `concurrency` of them at any time."""
    answers, turns, written = Answers(), iter(range(requests)), _bytes(bodies)

    async def caller(http: aiohttp.ClientSession) -> None:
        for turn in turns:
            await _send(http, url, written[turn % len(written)], time.perf_counter(), answers)

    start = time.perf_counter()
    async with _client(concurrency) as http:
        await asyncio.gather(*(caller(http) for _ in range(concurrency)))
    answers.seconds = time.perf_counter() - start
    return answers


async def open_loop(url: str, bodies: Sequence[Any], *, rate: float, seconds: float, steady: bool, seed: int = 0) -> Answers:
    """Send `rate` requests per second, at Poisson or steady arrivals, however long the answers take."""
    answers = Answers()
    count = round(rate * seconds)
    written = _bytes(bodies)
    gaps = np.full(count, 1 / rate) if steady else np.random.default_rng(seed).exponential(1 / rate, count)
    start = time.perf_counter()
    async with _client(1000) as http, asyncio.TaskGroup() as group:
        for due, body in zip(start + np.cumsum(gaps), itertools.cycle(written), strict=False):
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(_send(http, url, body, due, answers))
    answers.seconds = time.perf_counter() - start
    return answers


async def until(url: str, bodies: Iterable[Any], stop: asyncio.Event, *, concurrency: int) -> Answers:
    """Run a closed loop until `stop` is set."""
    answers, turns = Answers(), itertools.cycle(_bytes(bodies))

    async def caller(http: aiohttp.ClientSession) -> None:
        while not stop.is_set():
            await _send(http, url, next(turns), time.perf_counter(), answers)

    start = time.perf_counter()
    async with _client(concurrency) as http:
        await asyncio.gather(*(caller(http) for _ in range(concurrency)))
    answers.seconds = time.perf_counter() - start
    return answers


async def _send(http: aiohttp.ClientSession, url: str, body: bytes, since: float, answers: Answers) -> None:
    try:
        async with http.post(url, data=body) as answer:
            await answer.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        answers.failures[type(error).__name__] += 1
        return
    if answer.ok:
        answers.latencies.append(time.perf_counter() - since)
    else:
        answers.failures[f"{answer.status}"] += 1


def _client(connections: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections),
        timeout=aiohttp.ClientTimeout(60),
        headers={"Content-Type": "application/json"},
    )


def _bytes(bodies: Iterable[Any]) -> list[bytes]:
    return [orjson.dumps(body) for body in bodies]
