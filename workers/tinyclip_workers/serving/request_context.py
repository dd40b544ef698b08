"""The context of one HTTP request: its id, the seconds of each phase and counts of its content, for metrics and the log."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["body", "fetch", "decode", "wait", "encode", "labels", "search"]


@dataclass
class RequestContext:
    """The record of one request. It never holds images, texts or tokens, because it is logged."""

    request_id: str
    method: str
    route: str = "unmatched"
    """The path template of the matched route."""
    started: float = field(default_factory=time.monotonic)
    status: int = 0
    model: str | None = None
    """The model that answers."""
    error_code: str | None = None
    """The code of the problem document, if the answer is one."""
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds by phase. Phases of one request may overlap: its images and its labels are computed at the same time."""
    counts: Counter[str] = field(default_factory=Counter)
    held_bytes: int = 0
    """Bytes of its body and of the images that were fetched for it, until it is answered."""


_held_bytes = 0
"""The same of all requests of this process."""

_CURRENT: ContextVar[RequestContext | None] = ContextVar("tinyclip_request", default=None)


def set_current(context: RequestContext) -> None:
    """Attribute all further work of this task, and of the tasks it starts, to the request."""
    _CURRENT.set(context)


def current() -> RequestContext | None:
    return _CURRENT.get()


def hold_bytes(size: int, limit: int) -> bool:
    """Count bytes of the current request until `release_bytes`; return False if those of all requests would exceed the limit."""
    global _held_bytes
    context = _CURRENT.get()
    if _held_bytes + size > limit:
        return False
    if context is not None:
        context.held_bytes += size
        _held_bytes += size
    return True


def release_bytes(context: RequestContext) -> None:
    """Count the bytes of a request that is answered no longer."""
    global _held_bytes
    _held_bytes -= context.held_bytes
    context.held_bytes = 0


@contextmanager
def phase(name: Phase) -> Iterator[None]:
    """Add the time spent in the block to a phase of the current request."""
    started = time.monotonic()
    try:
        yield
    finally:
        add_seconds(name, time.monotonic() - started)


def add_seconds(name: Phase, seconds: float) -> None:
    if (context := _CURRENT.get()) is not None:
        context.seconds[name] += seconds


def add_count(name: str, number: int) -> None:
    if (context := _CURRENT.get()) is not None and number:
        context.counts[name] += number
