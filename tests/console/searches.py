"""A search that has ended and one that is paused, as rows of the database of `Records`, with texts that a browser withstands."""

from datetime import datetime, timedelta
from typing import Any

from tinyclip.schemas import JobState, SearchPhase
from tinyclip_server.database.tables import SearchEventRow, SearchRow, TrialRow

SEARCH, PAUSED_SEARCH = "sea_ended", "sea_paused"
TRIALS = 14
RECOMMENDED = 9
TASK = "emoji"


def search_rows(
    project: str, spec: dict[str, Any], hostile: str, at: datetime, trial_job: str
) -> list[tuple[type[Any], list[dict[str, Any]]]]:
    """Return the rows; `trial_job` is the job of the first trial."""
    searches = [
        _search(SEARCH, JobState.SUCCEEDED, project, spec, hostile, at, _result(hostile)),
        _search(PAUSED_SEARCH, JobState.PAUSED, project, spec, "paused", at - timedelta(hours=1), None),
    ]
    trials = [_trial(number, hostile, trial_job, at) for number in range(TRIALS)]
    events = [
        {"search_id": SEARCH, "seq": number, "type": f"trial.{'begun' if number % 2 else 'succeeded'}", "trial": number // 2,
         "message": hostile if number == 3 else f"trial {number // 2}", "data": {}, "created_at": at}
        for number in range(1, 2 * TRIALS)
    ]  # fmt: skip
    return [(SearchRow, searches), (TrialRow, trials), (SearchEventRow, events)]


def _search(
    id: str, state: JobState, project: str, spec: dict[str, Any], message: str, at: datetime, result: dict[str, Any] | None
) -> dict[str, Any]:
    task = {"name": TASK, "kind": "zero_shot", "shards": "/data/val.tar", "classes": ["a", "b"], "label_key": "cls"}
    post = {
        "spec": {**spec, "evaluation": {"tasks": [task]}},
        "constraints": [{"latency_ms": {"max": 4}, "engine": "openvino"}, {"task": TASK, "keep": 0.95}],
        "vary": {"optimizer.lr": {"min": 1e-5, "max": 1e-3, "log": True}},
        "budget": {"trials": 16, "device_hours": 8, "at_once": 2},
    }
    return {
        "id": id, "project": project, "name": "smallest", "post": post, "state": state, "phase": SearchPhase.FINALISTS,
        "message": message, "plan": {"steps": 1000, "device_hours": 0.5}, "device_hours": 2.4, "result": result, "revision": 3,
        "last_event": 2 * TRIALS - 1 if result is not None else 0, "created_at": at, "updated_at": at,
        "finished_at": at if state.terminal else None,
    }  # fmt: skip


def _trial(number: int, hostile: str, job: str, at: datetime) -> dict[str, Any]:
    failed, share = number == 3, _share(number)
    size = {"image": share, "text": min(1.0, 1.3 * share), "image_layers": [12], "text_layers": 12}
    settings = {
        "phase": "size", "size": size, "scale": share, "from": number - 1 if number > 6 else None,
        "optimizer.lr": 1e-5 * 1.4**number,
    }  # fmt: skip
    outcome: dict[str, Any] = {"state": JobState.FAILED, "error": f"the loss is not finite {hostile}", "device_hours": 0.1}
    if not failed:
        quality = 0.35 + 0.3 * share**0.4 + 0.02 * (number % 3)
        outcome = {
            "state": JobState.SUCCEEDED, "model": {"name": "smallest", "version": number}, "params": round(3e6 * share),
            "macs": round(9e7 * share), "bytes": round(12e6 * share), "quality": {TASK: {"top1": quality, "top5": quality + 0.2}},
            "teacher": {TASK: {"top1": 0.64, "top5": 0.9}}, "device_hours": 0.2,
        }  # fmt: skip
    return {
        "search_id": SEARCH, "number": number, "rung": number // 8, "settings": settings, "spec": {},
        "job_id": job if number == 0 else f"job_trial_{number}", "outcome": outcome,
        "measurements": _measurements(share) if number >= TRIALS - 6 else None, "created_at": at,
    }  # fmt: skip


def _measurements(share: float) -> list[dict[str, Any]]:
    quality = {TASK: {"top1": 0.35 + 0.3 * share**0.4}}
    speeds = {"torch": 11.0, "openvino": 5.5, "openvino-int8": 3.5}
    return [
        {"engine": engine, "latency_ms": {"image:1": ms * share, "text:1": 0.6 * ms * share}, "bytes": round(12e6 * share),
         "quality": quality}
        for engine, ms in speeds.items()
    ]  # fmt: skip


def _result(hostile: str) -> dict[str, Any]:
    front = [_candidate(number) for number in (TRIALS - 6, RECOMMENDED, TRIALS - 1)]
    reason = f"smallest@{RECOMMENDED} is the smallest student found that meets all constraints. {hostile}"
    return {"front": front, "recommended": front[1], "reason": reason, "importance": {"optimizer.lr": 0.7, "sizes": 0.3}}


def _candidate(number: int) -> dict[str, Any]:
    share, is_feasible = _share(number), number >= RECOMMENDED
    return {
        "model": {"name": "smallest", "version": number}, "trial": number, "params": round(3e6 * share),
        "macs": round(9e7 * share), "measurements": _measurements(share), "is_feasible": is_feasible,
        "violations": [] if is_feasible else ["top1 of emoji is 0.601, less than 0.608"],
    }  # fmt: skip


def _share(number: int) -> float:
    """Return the share of the teacher's weights that a trial has."""
    return 0.2 + 0.055 * number
