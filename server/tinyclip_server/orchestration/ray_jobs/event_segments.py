"""Reading the event segments that a Ray job writes, from a read position on."""

import json
import logging
import re
import time
from typing import Any

from pydantic import ValidationError
from tinyclip.artifacts.documents import WorkerEvent
from tinyclip.artifacts.paths import event_segment

from tinyclip_server.backends.artifacts import AsyncArtifactsStore

logger = logging.getLogger(__name__)

MAX_SEGMENTS = 200
"""Read in one round; a server that was away for hours catches up over several."""
READING_SECONDS = 5.0
"""Time after which a round reads no further segment: what is read counts only if the lease on the job holds until then."""
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


async def read_segments(store: AsyncArtifactsStore, folder: str, first: int) -> tuple[list[list[WorkerEvent]], bool]:
    """Return the events of each segment from number `first` on, and whether these are all that exist by now."""
    segments: list[list[WorkerEvent]] = []
    end = time.monotonic() + READING_SECONDS
    while len(segments) < MAX_SEGMENTS and (not segments or time.monotonic() < end):
        path = event_segment(folder, first + len(segments))
        data = await store.read_if_exists(path)
        if data is None:
            return segments, True
        segments.append(_parse(data, path))
    return segments, False


def _parse(data: bytes, path: str) -> list[WorkerEvent]:
    events = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            document = json.loads(line, parse_constant=lambda _: None)  # NaN and Infinity are no JSON: PostgreSQL refuses them
            events.append(WorkerEvent.model_validate(_storable(document)))
        except (ValueError, ValidationError) as error:  # skipped for good: reading it again would not make it readable
            logger.error("%s line %d is not an event: %s", path, number, error)
    return events


def _storable(value: Any) -> Any:
    """Replace what JSON can spell and a database text cannot hold: a NUL, or half a surrogate pair."""
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_storable(item) for item in value]
    return UNSTORABLE.sub("\ufffd", value) if isinstance(value, str) else value
