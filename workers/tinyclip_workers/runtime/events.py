"""Events from workers to the control plane: numbered, immutable segments in the artifacts store.

The control plane need not be running. A segment is written whole, so a reader applies it once or not at all. Driver and worker 0
of an attempt take turns in writing to one folder; an existing number is never overwritten.
"""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from tinyclip.artifacts.documents import WorkerEvent
from tinyclip.artifacts.paths import event_segment
from tinyclip.artifacts.store import ArtifactsStore


class EventWriter:
    """Collects events and writes them as the next segment: progress and log lines every `interval_s`, all others at once."""

    def __init__(self, store: ArtifactsStore, folder: str, attempt: int, *, interval_s: float = 1.0) -> None:
        self._store, self._folder, self._attempt, self._interval_s = store, folder, attempt, interval_s
        written = [int(name.split(".")[0]) for name in store.list(folder) if name.endswith(".jsonl")]
        self._next = max(written, default=0) + 1
        self._pending: list[str] = []
        self._last_flush = time.monotonic()

    def send(self, type: str, *, stage: int | None = None, message: str = "", data: dict[str, Any] | None = None) -> None:
        """Add an event. Progress and log lines may wait up to `interval_s`; everything else is on disk when this returns."""
        event = WorkerEvent(
            type=type, time=datetime.now(UTC), attempt=self._attempt, stage=stage, message=message, data=data or {}
        )
        self._pending.append(json.dumps(event.model_dump(mode="json"), allow_nan=False))
        may_wait = type in ("progress", "log", "index.progress", "evaluation.progress", "export.progress")
        if not may_wait or time.monotonic() - self._last_flush >= self._interval_s:
            self.flush()

    def flush(self) -> None:
        """Write the pending events as one segment."""
        if self._pending:
            data = ("\n".join(self._pending) + "\n").encode()
            while not self._store.create_bytes(event_segment(self._folder, self._next), data):
                self._next += 1  # written by the driver or an earlier worker of this attempt
            self._next += 1
            self._pending.clear()
        self._last_flush = time.monotonic()


def log_to_events(events: EventWriter, source: str) -> None:
    """Also write this process's log records, from INFO up, as `log` events: these outlive Ray."""
    logger = logging.getLogger("tinyclip_workers")
    logger.setLevel(logging.INFO)
    logger.addHandler(EventLogHandler(events, source))


@contextmanager
def reporting(store: ArtifactsStore, folder: str, attempt: int, source: str) -> Iterator[EventWriter]:
    """Yield a writer of a job's events that also receives this process's log records; flush it at the end."""
    events = EventWriter(store, folder, attempt)
    handler = EventLogHandler(events, source)
    logging.getLogger("tinyclip_workers").addHandler(handler)
    try:
        yield events
    finally:
        logging.getLogger("tinyclip_workers").removeHandler(handler)
        events.flush()


class EventLogHandler(logging.Handler):
    """Writes log records as `log` events."""

    def __init__(self, events: EventWriter, source: str) -> None:
        super().__init__(logging.INFO)
        self._events, self._source = events, source

    def emit(self, record: logging.LogRecord) -> None:
        self._events.send("log", message=self.format(record), data={"level": record.levelname.lower(), "source": self._source})
