"""What the Ray job of an index's build would find and write."""

import json
from datetime import UTC, datetime
from typing import Any

from tests.server.service import Service


def request(service: Service, index: str = "gallery") -> dict[str, Any]:
    return json.loads((service.artifacts / f"indexes/{index}/request.json").read_text())


def tell(service: Service, *events: dict[str, Any], index: str = "gallery") -> None:
    """What the build's job would write as its next segment."""
    folder = service.artifacts / f"indexes/{index}/jobs/{request(service, index)['job']}/events"
    folder.mkdir(parents=True, exist_ok=True)
    stamp = {"time": datetime.now(UTC).isoformat(), "attempt": 1}
    path = folder / f"{len(list(folder.iterdir())) + 1:08d}.jsonl"
    path.write_text("".join(json.dumps({**stamp, **event}) + "\n" for event in events))


def progress(done: int, total: int | None) -> dict[str, Any]:
    return {"type": "index.progress", "data": {"done": done, "total": total}}


def finished(count: int) -> dict[str, Any]:
    data = {"count": count, "kind": "exact", "recall": None}
    return {"type": "index.finished", "message": f"{count} items", "data": data}


def updated(applied: int, count: int, *rejected: dict[str, Any], last: bool = True) -> dict[str, Any]:
    data = {"applied": applied, "count": count, "kind": "hnsw", "recall": 0.98, "rejected": list(rejected), "last": last}
    return {"type": "index.updated", "data": data}
