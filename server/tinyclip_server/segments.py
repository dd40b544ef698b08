"""Event segments as workers write them: immutable, numbered from 1, each there with all of its lines or not at all."""

import json
import logging

from pydantic import ValidationError
from tinyclip.schemas.artifacts import WorkerEvent, segment

from tinyclip_server.artifacts import Store

logger = logging.getLogger(__name__)

MOST_SEGMENTS = 200
"""Read in one look; a server that was away for hours catches up over several."""


async def read_segments(store: Store, folder: str, first: int) -> tuple[list[list[WorkerEvent]], bool]:
    """The events of the segments from number `first` on, and whether that is all there is by now."""
    segments: list[list[WorkerEvent]] = []
    while len(segments) < MOST_SEGMENTS:
        path = segment(folder, first + len(segments))
        data = await store.read(path)
        if data is None:
            return segments, True
        segments.append(_events_in(data, path))
    return segments, False


def _events_in(data: bytes, path: str) -> list[WorkerEvent]:
    events = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            events.append(WorkerEvent.model_validate(json.loads(line)))
        except (ValueError, ValidationError) as error:  # skipped for good: reading it again would not make it readable
            logger.error("%s line %d is not an event: %s", path, number, error)
    return events
