"""What one request cost: seconds by phase, and how much of what was in it. For the metrics and the log."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["body", "fetch", "decode", "wait", "encode", "labels", "search"]


@dataclass
class Asked:
    """One request as the log shows it: never its images, texts or token."""

    request_id: str
    method: str
    path: str
    route: str = "unmatched"
    """The template of its path."""
    began: float = field(default_factory=time.monotonic)
    status: int = 0
    model: str | None = None
    """That answers."""
    code: str | None = None
    """Of the problem, if the answer was one."""
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """By phase. Phases of one request may overlap: its images and its labels are computed at the same time."""
    counts: Counter[str] = field(default_factory=Counter)


_CURRENT: ContextVar[Asked | None] = ContextVar("tinyclip_asked", default=None)


def begin(asked: Asked) -> None:
    """What follows in this context is done for this request."""
    _CURRENT.set(asked)


def current() -> Asked | None:
    return _CURRENT.get()


@contextmanager
def phase(name: Phase) -> Iterator[None]:
    """The time within counts as this phase of the current request."""
    began = time.monotonic()
    try:
        yield
    finally:
        spent(name, time.monotonic() - began)


def spent(name: Phase, seconds: float) -> None:
    if (asked := _CURRENT.get()) is not None:
        asked.seconds[name] += seconds


def count(name: str, number: int) -> None:
    """So many more of something in the current request."""
    if (asked := _CURRENT.get()) is not None and number:
        asked.counts[name] += number
