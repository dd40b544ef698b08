"""What is told of the requests of a deployment: numbers for Prometheus and one line of JSON each for the log."""

import asyncio
import json
import logging
import sys
import time
from collections import Counter as Tally
from datetime import UTC, datetime
from typing import Any, TypeVar

from ray.util.metrics import Counter, Gauge, Histogram, Metric

from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.queries.timings import Asked

log = logging.getLogger("tinyclip.access")

METRICS = {
    "tinyclip_serve_requests": "Requests, by route, status and the model that answers",
    "tinyclip_serve_request_seconds": "Time of a request in the replica, by route",
    "tinyclip_serve_phase_seconds": "Time of a request in one phase: body, fetch, decode, wait, encode, labels, search",
    "tinyclip_serve_batch_items": "Items computed together, by kind (images, texts)",
    "tinyclip_serve_cached_texts": "Texts whose embedding was known (hit) or not (miss)",
    "tinyclip_serve_waiting_items": "Items admitted and not yet done, by kind",
}
"""Ray puts `ray_` before each name; a counter's ends in `_total`."""

SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
ITEMS = [1.0, 2, 4, 8, 16, 32, 64, 128, 256]
TOLD_AFTER_S = 0.5
"""Sums and the number of those that wait are told so late, not a few times a request: each word to Ray costs the event loop."""

M = TypeVar("M", bound=Metric)

OFTEN_ASKED = frozenset({"/healthz", "/.well-known/live", "/.well-known/ready"})
"""By machines, every few seconds: not worth a line unless they go wrong."""


class Watch:
    """The numbers of one replica; Ray's agent of the node gives them to Prometheus. For one event loop."""

    def __init__(self, options: ServingOptions) -> None:
        self._deployment, self._model = options.name, options.model
        self._requests = self._counter("tinyclip_serve_requests", "route", "status", "model")
        self._request_s = self._histogram("tinyclip_serve_request_seconds", SECONDS, "route")
        self._phase_s = self._histogram("tinyclip_serve_phase_seconds", SECONDS, "route", "phase")
        self._batch = self._histogram("tinyclip_serve_batch_items", ITEMS, "kind")
        self._cached = self._counter("tinyclip_serve_cached_texts", "result")
        name = "tinyclip_serve_waiting_items"
        self._waiting = self._named(Gauge(name, METRICS[name], ("deployment", "kind")))
        self._ended: Tally[tuple[str, str, str]] = Tally()
        self._known: Tally[str] = Tally()
        self._wait: dict[str, int] = {}
        self._telling: asyncio.TimerHandle | None = None

    def request(self, asked: Asked) -> None:
        """One request has ended."""
        route, seconds = asked.route, time.monotonic() - asked.began
        self._ended[route, str(asked.status), asked.model or self._model] += 1
        self._tell_soon()
        self._request_s.observe(seconds, {"route": route})
        for phase, spent in asked.seconds.items():
            self._phase_s.observe(spent, {"route": route, "phase": phase})
        if log.isEnabledFor(logging.INFO) and (route not in OFTEN_ASKED or asked.status >= 500):
            log.info("%s", json.dumps(self._line(asked, seconds)))

    def batch(self, kind: str, items: int) -> None:
        self._batch.observe(items, {"kind": kind})

    def cached(self, hits: int, misses: int) -> None:
        self._known.update(hit=hits, miss=misses)
        self._tell_soon()

    def waiting(self, kind: str, items: int) -> None:
        self._wait[kind] = items
        self._tell_soon()

    def _tell_soon(self) -> None:
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TOLD_AFTER_S, self._tell)

    def _tell(self) -> None:
        self._telling = None
        for (route, status, model), ended in self._ended.items():
            self._requests.inc(ended, {"route": route, "status": status, "model": model})
        for result, texts in self._known.items():
            if texts:
                self._cached.inc(texts, {"result": result})
        for kind, items in self._wait.items():
            self._waiting.set(items, {"kind": kind})
        self._ended.clear()
        self._known.clear()
        self._wait.clear()

    def _line(self, asked: Asked, seconds: float) -> dict[str, Any]:
        """Nothing of what was asked about, only how much of it."""
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "request_id": asked.request_id,
            "deployment": self._deployment, "model": asked.model or self._model, "method": asked.method, "route": asked.route,
            "status": asked.status, **({"code": asked.code} if asked.code else {}),
            "ms": {"total": _ms(seconds), **{phase: _ms(spent) for phase, spent in asked.seconds.items()}},
            "counts": dict(asked.counts),
        }  # fmt: skip

    def _counter(self, name: str, *tags: str) -> Counter:
        return self._named(Counter(name, METRICS[name], ("deployment", *tags)))

    def _histogram(self, name: str, boundaries: list[float], *tags: str) -> Histogram:
        return self._named(Histogram(name, METRICS[name], boundaries, ("deployment", *tags)))

    def _named(self, metric: M) -> M:
        metric.set_default_tags({"deployment": self._deployment})
        return metric


def write_log() -> None:
    """Lines go to standard error, which Ray keeps among the logs of its workers.

    The real one: what Serve puts in its place keeps lines back, a thousand of them where it is told to be fast.
    """
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)
