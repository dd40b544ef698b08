"""The frame that all Ray jobs other than training run in: their events, their log and their exit status."""

import logging
import traceback
from collections.abc import Callable
from typing import Any

from tinyclip.artifacts.store import ArtifactsStore

from tinyclip_workers.runtime.events import EventWriter, reporting

log = logging.getLogger(__name__)


class RequestWithdrawn(Exception):
    """The request was deleted or belongs to another job by now: exit without a final event."""


class JobFailed(Exception):
    """Message and `data` of a `….failed` event."""

    def __init__(self, code: str, message: str, **data: Any) -> None:
        super().__init__(message)
        self.data = {"code": code, **data}


def run(store: ArtifactsStore, folder: str, attempt: int, source: str, work: Callable[[EventWriter], object]) -> int:
    """Run `work`, which emits its own final event, and return the exit status.

    0: done, or no longer wanted. 1: failed, and a `<source>.failed` event holds the reason. Events and this process's log
    records are written to `folder`.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        with reporting(store, folder, attempt, source) as events:
            return _run_reported(source, work, events)
    except RequestWithdrawn as withdrawn:
        log.info("stopping: %s", withdrawn)  # not as an event: writing one would recreate a deleted folder
        return 0


def _run_reported(source: str, work: Callable[[EventWriter], object], events: EventWriter) -> int:
    """Raises RequestWithdrawn."""
    try:
        work(events)
    except RequestWithdrawn:
        raise
    except JobFailed as failure:
        traceback.print_exc()
        events.send(f"{source}.failed", message=str(failure), data=failure.data)
        return 1
    except Exception as error:  # third-party libraries raise anything
        traceback.print_exc()
        events.send(f"{source}.failed", message=f"{type(error).__name__}: {error}", data={"code": "internal_error"})
        return 1
    return 0
