"""Events from workers to the control plane: numbered, immutable segments in the artifacts store.

The control plane need not be running. A segment is written whole, so a reader applies it once or not at all. Driver and worker 0
of an attempt take turns in writing to one folder; an existing number is never overwritten. The id of its writer distinguishes a
segment, so that after a lost response the writer recognises its own.
"""

import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from tinyclip.artifacts.documents import WorkerEvent
from tinyclip.artifacts.paths import event_segment
from tinyclip.artifacts.store import ArtifactsStore


class EventWriter:
    """Collects events and writes them as the next segment: progress and log lines every `interval_s`, all others at once.

    Thread-safe: log records come from any thread.
    """

    def __init__(self, store: ArtifactsStore, folder: str, attempt: int, *, interval_s: float = 1.0) -> None:
        self._store, self._folder, self._attempt, self._interval_s = store, folder, attempt, interval_s
        self._writer = uuid.uuid4().hex[:12]
        written = [int(name.split(".")[0]) for name in store.list(folder) if name.endswith(".jsonl")]
        self._next = max(written, default=0) + 1
        self._pending: list[str] = []
        self._segment = b""
        """The next segment, from its first write until that is confirmed: a write that failed may have been done."""
        self._last_flush = time.monotonic()
        self._lock = threading.RLock()
        self._is_writing = False

    def send(self, type: str, *, stage: int | None = None, message: str = "", data: dict[str, Any] | None = None) -> None:
        """Add an event. Progress and log lines may wait up to `interval_s`; everything else is on disk when this returns.

        Raises OSError if the store fails; the events are kept and written by the next call that succeeds.
        """
        event = WorkerEvent(
            type=type, time=datetime.now(UTC), attempt=self._attempt, writer=self._writer, stage=stage, message=message,
            data=data or {},
        )  # fmt: skip
        may_wait = type == "log" or type.split(".")[-1] == "progress"
        with self._lock:
            self._pending.append(json.dumps(event.model_dump(mode="json"), allow_nan=False))
            if not may_wait or time.monotonic() - self._last_flush >= self._interval_s:
                self.flush()

    def flush(self) -> None:
        """Write the pending events as one segment. Raises OSError if the store fails."""
        with self._lock:
            if self._is_writing:  # an event of the writing itself, such as a log line: it follows with the loop's next round
                return
            self._is_writing = True
            try:
                while self._segment or self._pending:
                    self._write_segment()
            finally:
                self._is_writing = False
                self._last_flush = time.monotonic()

    def _write_segment(self) -> None:
        if not self._segment:
            self._segment = ("\n".join(self._pending) + "\n").encode()
            self._pending.clear()
        while not self._store.create_bytes(event_segment(self._folder, self._next), self._segment):
            self._next += 1  # written by the driver or an earlier worker of this attempt
        self._next += 1
        self._segment = b""


@contextmanager
def log_to_events(events: EventWriter, source: str) -> Iterator[None]:
    """Also write this process's log records, from INFO up, as `log` events: these outlive Ray."""
    logger, handler = logging.getLogger("tinyclip_workers"), EventLogHandler(events, source)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def reporting(store: ArtifactsStore, folder: str, attempt: int, source: str) -> Iterator[EventWriter]:
    """Yield a writer of a job's events that also receives this process's log records; flush it at the end."""
    events = EventWriter(store, folder, attempt)
    try:
        with log_to_events(events, source):
            yield events
    finally:
        events.flush()


class EventLogHandler(logging.Handler):
    """Writes log records as `log` events."""

    def __init__(self, events: EventWriter, source: str) -> None:
        super().__init__(logging.INFO)
        self._events, self._source = events, source

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = {"level": record.levelname.lower(), "source": self._source}
            self._events.send("log", message=self.format(record), data=data)
        except OSError:  # the caller that logs need not know; the line is kept
            self.handleError(record)
