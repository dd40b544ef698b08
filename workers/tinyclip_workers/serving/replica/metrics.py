"""Metrics for Prometheus, and the access log: one line of JSON per request."""

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
from tinyclip_workers.serving.request_context import RequestContext

log = logging.getLogger("tinyclip.access")

METRICS = {
    "tinyclip_serve_requests": "Requests, by route, status and the model that answers",
    "tinyclip_serve_request_seconds": "Time of a request in the replica, by route",
    "tinyclip_serve_phase_seconds": "Time of a request in one phase: body, fetch, decode, wait, encode, labels, search",
    "tinyclip_serve_batch_items": "Items computed together, by kind (images, texts)",
    "tinyclip_serve_cached_texts": "Texts whose embedding was known (hit) or not (miss)",
    "tinyclip_serve_unknown_tokens": "Tokens of texts and labels that are not in a reduced vocabulary, by route and model",
    "tinyclip_serve_waiting_items": "Items admitted and not yet done, by kind",
}
"""Ray prefixes each name with `ray_`, and appends `_total` to a counter's."""

SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
ITEMS = [1.0, 2, 4, 8, 16, 32, 64, 128, 256]
FLUSH_SECONDS = 0.5
"""Counters and gauges are sent to Ray after so long, not several times a request: each call takes time of the event loop."""
PROBES = frozenset({"/healthz", "/.well-known/live", "/.well-known/ready"})
"""Routes that machines call every few seconds: logged only if they fail."""

M = TypeVar("M", bound=Metric)


class ServingMetrics:
    """The metrics of one replica, which Ray's agent of the node exposes to Prometheus. For one event loop."""

    def __init__(self, options: ServingOptions) -> None:
        self._deployment, self._model = options.name, options.model
        self._requests = self._counter("tinyclip_serve_requests", "route", "status", "model")
        self._request_s = self._histogram("tinyclip_serve_request_seconds", SECONDS, "route")
        self._phase_s = self._histogram("tinyclip_serve_phase_seconds", SECONDS, "route", "phase")
        self._batch_items = self._histogram("tinyclip_serve_batch_items", ITEMS, "kind")
        self._cached_texts = self._counter("tinyclip_serve_cached_texts", "result")
        self._unknown_tokens = self._counter("tinyclip_serve_unknown_tokens", "route", "model")
        name = "tinyclip_serve_waiting_items"
        self._waiting = self._with_deployment(Gauge(name, METRICS[name], ("deployment", "kind")))
        self._new_requests: Tally[tuple[str, str, str]] = Tally()
        self._new_cached_texts: Tally[str] = Tally()
        self._new_unknown_tokens: Tally[tuple[str, str]] = Tally()
        self._new_waiting: dict[str, int] = {}
        self._flush_timer: asyncio.TimerHandle | None = None

    def record_request(self, request: RequestContext) -> None:
        """Count and log a request that has ended."""
        route, seconds, model = request.route, time.monotonic() - request.started, request.model or self._model
        self._new_requests[route, str(request.status), model] += 1
        if unknown := request.counts["unknown_tokens"]:
            self._new_unknown_tokens[route, model] += unknown
        self._schedule_flush()
        self._request_s.observe(seconds, {"route": route})
        for phase, phase_s in request.seconds.items():
            self._phase_s.observe(phase_s, {"route": route, "phase": phase})
        if log.isEnabledFor(logging.INFO) and (route not in PROBES or request.status >= 500):
            log.info("%s", json.dumps(self._log_line(request, seconds)))

    def record_batch(self, kind: str, items: int) -> None:
        self._batch_items.observe(items, {"kind": kind})

    def record_cached_texts(self, hits: int, misses: int) -> None:
        self._new_cached_texts.update(hit=hits, miss=misses)
        self._schedule_flush()

    def set_waiting(self, kind: str, items: int) -> None:
        self._new_waiting[kind] = items
        self._schedule_flush()

    def _schedule_flush(self) -> None:
        if self._flush_timer is None:
            self._flush_timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._flush_timer = None
        for (route, status, model), requests in self._new_requests.items():
            self._requests.inc(requests, {"route": route, "status": status, "model": model})
        for result, texts in self._new_cached_texts.items():
            if texts:
                self._cached_texts.inc(texts, {"result": result})
        for (route, model), tokens in self._new_unknown_tokens.items():
            self._unknown_tokens.inc(tokens, {"route": route, "model": model})
        for kind, items in self._new_waiting.items():
            self._waiting.set(items, {"kind": kind})
        self._new_requests.clear()
        self._new_cached_texts.clear()
        self._new_unknown_tokens.clear()
        self._new_waiting.clear()

    def _log_line(self, request: RequestContext, seconds: float) -> dict[str, Any]:
        """Return the log record: sizes and times of a request, nothing of its content."""
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "request_id": request.request_id,
            "deployment": self._deployment, "model": request.model or self._model, "method": request.method,
            "route": request.route, "status": request.status, **({"code": request.error_code} if request.error_code else {}),
            "ms": {"total": _ms(seconds), **{phase: _ms(phase_s) for phase, phase_s in request.seconds.items()}},
            "counts": dict(request.counts),
        }  # fmt: skip

    def _counter(self, name: str, *tags: str) -> Counter:
        return self._with_deployment(Counter(name, METRICS[name], ("deployment", *tags)))

    def _histogram(self, name: str, boundaries: list[float], *tags: str) -> Histogram:
        return self._with_deployment(Histogram(name, METRICS[name], boundaries, ("deployment", *tags)))

    def _with_deployment(self, metric: M) -> M:
        metric.set_default_tags({"deployment": self._deployment})
        return metric


def configure_access_log() -> None:
    """Write the access log to standard error, which Ray keeps among the logs of its workers.

    The process's original stream: the one that Serve installs buffers lines, a thousand of them if optimised for throughput.
    """
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)
