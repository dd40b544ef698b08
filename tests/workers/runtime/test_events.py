"""What a process writes to its log, as events of its job."""

import json
import logging
from pathlib import Path

from tinyclip.artifacts.store import ArtifactsStore
from tinyclip_workers.runtime.events import EventWriter, log_to_events


def test_lines_of_the_log_are_events_until_the_block_ends(tmp_path: Path) -> None:
    store = ArtifactsStore(str(tmp_path))
    events = EventWriter(store, "events", 1)
    log = logging.getLogger("tinyclip_workers.somewhere")

    with log_to_events(events, "driver"):
        log.info("during")
        log.debug("too detailed")
    log.info("after")
    events.flush()

    lines = [json.loads(line) for line in store.read_bytes("events/00000001.jsonl").splitlines()]
    assert [(line["type"], line["message"], line["data"]["source"]) for line in lines] == [("log", "during", "driver")]
