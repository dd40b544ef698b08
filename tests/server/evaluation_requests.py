"""What the Ray job of an evaluation would find and write."""

import json
from datetime import UTC, datetime
from typing import Any

from tests.server.service import Service

SCORES = {"top1": 0.6, "top5": 0.9, "per_class": [0.5, None], "worst_classes": []}


def request(service: Service, id: str) -> dict[str, Any]:
    return json.loads((service.artifacts / f"evaluations/{id}/request.json").read_text())


def tell(service: Service, id: str, *events: dict[str, Any], attempt: int = 1) -> None:
    """What the job would write as its next segment."""
    folder = service.artifacts / f"evaluations/{id}/attempts/{attempt}/events"
    folder.mkdir(parents=True, exist_ok=True)
    stamp = {"time": datetime.now(UTC).isoformat(), "attempt": attempt}
    path = folder / f"{len(list(folder.iterdir())) + 1:08d}.jsonl"
    path.write_text("".join(json.dumps({**stamp, **event}) + "\n" for event in events))


STARTED = {"type": "evaluation.started"}


def progress(fraction: float | None) -> dict[str, Any]:
    return {"type": "evaluation.progress", "message": "1,234 samples", "data": {"fraction": fraction}}


def finished(*tasks: str, teacher: str | None = None, **scores: Any) -> dict[str, Any]:
    """All tasks with the same numbers; `teacher` is the digest of a model that it was held against."""
    models = {"student": {"name": "s", "sha256": "aa"}, **({"teacher": {"name": "t", "sha256": teacher}} if teacher else {})}
    one = {"student": {**SCORES, **scores}, "teacher": {**SCORES, "top1": 0.7} if teacher else None}
    return {"type": "evaluation.finished", "data": {"results": dict.fromkeys(tasks, one), "models": models}}


def failed(code: str, message: str, **where: Any) -> dict[str, Any]:
    return {"type": "evaluation.failed", "message": message, "data": {"code": code, "pointer": None, "value": None, **where}}
