"""What the Ray jobs beside training have in common: what they tell, and how they end."""

import logging
import traceback
from collections.abc import Callable
from typing import Any

from tinyclip_workers.runtime.events import EventWriter, reporting
from tinyclip_workers.runtime.store import Store

log = logging.getLogger(__name__)


class Unwanted(Exception):
    """What the job was to do was taken back, or another job does it: this one leaves without a word."""


class Failure(Exception):
    """Message and `data` of a `….failed` event."""

    def __init__(self, code: str, message: str, **data: Any) -> None:
        super().__init__(message)
        self.data = {"code": code, **data}


def run(store: Store, folder: str, attempt: int, source: str, work: Callable[[EventWriter], object]) -> int:
    """The exit status: 0 if `work` is done or no longer wanted, 1 if it failed, and a `<source>.failed` event says why.

    `work` tells of its end itself. Events go to `folder`, and this process's log with them.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        with reporting(store, folder, attempt, source) as events:
            return _reported(source, work, events)
    except Unwanted as gone:
        log.info("stopping: %s", gone)  # out here: as an event it would bring a deleted folder back
        return 0


def _reported(source: str, work: Callable[[EventWriter], object], events: EventWriter) -> int:
    """Raises Unwanted."""
    try:
        work(events)
    except Unwanted:
        raise
    except Failure as failure:
        traceback.print_exc()
        events.send(f"{source}.failed", message=str(failure), data=failure.data)
        return 1
    except Exception as error:  # libraries of others raise anything
        traceback.print_exc()
        events.send(f"{source}.failed", message=f"{type(error).__name__}: {error}", data={"code": "internal_error"})
        return 1
    return 0
