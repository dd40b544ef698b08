"""What is known of a search's trials: from their jobs while they run, from the trial's own row once they have ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.searches import CostModel, Quality, SearchRecord, TrialRecord
from tinyclip.schemas import JobState, Layout, Measurement, ModelRef, Response, SearchPost, Trial
from tinyclip.schemas.layouts import AnyLayout

from tinyclip_server.database.tables import ModelVersionRow, SearchRow, TrialRow
from tinyclip_server.searches import repository
from tinyclip_server.searches.repository import JobOfTrial

WEIGHTS = ".safetensors"
NO_METRICS = ("ms_per_image", "probe_c")
"""Values of an evaluation that are no qualities of the model."""


class PlannedSpec(Response):
    """The parts of a spec's plan that a search keeps."""

    steps: int
    device_hours: float
    teacher: AnyLayout | None = None


class TrialOutcome(Response):
    """How a trial ended, and what its student is like."""

    state: JobState
    error: str = ""
    model: ModelRef | None = None
    layout: AnyLayout | None = None
    params: int | None = None
    macs: int | None = None
    bytes: int | None = None
    quality: Quality = {}
    teacher: Quality = {}
    device_hours: float = 0.0


@dataclass(frozen=True)
class KnownTrial:
    """A trial and how it is now."""

    row: TrialRow
    outcome: TrialOutcome
    is_settled: bool
    """True if the outcome is stored."""


async def known_trials(session: AsyncSession, search_id: str) -> list[KnownTrial]:
    """Return the trials of a search in the order of their numbers."""
    rows = await repository.trials(session, search_id)
    open_rows = [row for row in rows if row.outcome is None]
    jobs = await repository.jobs(session, search_id) if open_rows else {}
    mine = {row.job_id: jobs[row.job_id] for row in open_rows if row.job_id in jobs}
    seconds = await repository.seconds_on_cluster(session, list(mine))
    models = await repository.model_documents(session, {id: job.model for id, job in mine.items() if job.model is not None})
    return [
        KnownTrial(row, TrialOutcome.model_validate(row.outcome), is_settled=True)
        if row.outcome is not None
        else KnownTrial(row, _outcome(mine.get(row.job_id or ""), seconds, models), is_settled=False)
        for row in rows
    ]


def record_of(search: SearchRow, trials: Sequence[KnownTrial]) -> SearchRecord:
    """Return the record on which the engine's advice depends. Trials have no specs, which follow from the settings."""
    plan = PlannedSpec.model_validate(search.plan)
    return SearchRecord(
        id=search.id,
        post=SearchPost.model_validate(search.post),
        costs=CostModel.model_validate(search.costs) if search.costs is not None else None,
        teacher=plain_layout(plan.teacher),
        teacher_quality=teacher_quality(trials),
        steps=plan.steps,
        device_hours=plan.device_hours,
        trials=[_trial_record(trial) for trial in trials],
        measured=[trial.row.number for trial in trials if trial.row.measurements is not None],
    )


def trial_view(trial: KnownTrial) -> Trial:
    row, outcome = trial.row, trial.outcome
    return Trial(
        number=row.number, rung=row.rung, job=row.job_id, settings=row.settings, measurements=_measurements(trial),
        **outcome.model_dump(include={"state", "error", "model", "params", "macs", "bytes", "quality", "device_hours"}),
    )


def teacher_quality(trials: Sequence[KnownTrial]) -> Quality:
    return next((trial.outcome.teacher for trial in trials if trial.outcome.teacher), {})


def device_hours(trials: Sequence[KnownTrial]) -> float:
    return sum(trial.outcome.device_hours for trial in trials)


def _trial_record(trial: KnownTrial) -> TrialRecord:
    row = trial.row
    return TrialRecord(
        number=row.number, rung=row.rung, settings=row.settings, layout=plain_layout(trial.outcome.layout),
        measurements=_measurements(trial),
        **{name: getattr(trial.outcome, name) for name in TrialOutcome.model_fields if name not in ("error", "layout")},
    )


def _measurements(trial: KnownTrial) -> list[Measurement]:
    return [Measurement.model_validate(each) for each in trial.row.measurements or []]


def plain_layout(layout: AnyLayout | None) -> Layout | None:
    """Return a layout of CLIP's own family; None for any other architecture."""
    return layout if isinstance(layout, Layout) else None


def _outcome(
    job: JobOfTrial | None, seconds: Mapping[str, float], models: Mapping[str, ModelVersionRow]
) -> TrialOutcome:
    if job is None:
        return TrialOutcome(state=JobState.FAILED, error="its job was deleted")
    found: dict[str, Any] = {}
    if job.model is not None and job.id in models:
        document = models[job.id].document
        name, version = job.model
        params = document["params"]
        weights = [file["bytes"] for file in document["files"] if file["path"].endswith(WEIGHTS)]
        found = {
            "model": ModelRef(name=name, version=version), "layout": document["layout"], "macs": document["macs"],
            "params": params["image"] + params["text"], "bytes": sum(weights) if weights else None,
            "quality": _numbers(document.get("evaluation", {}), "student"),
            "teacher": _numbers(document.get("evaluation", {}), "teacher"),
        }
    hours = seconds.get(job.id, 0.0) / 3600 * _devices(job.resources)
    return TrialOutcome.model_validate({"state": job.state, "error": job.error, "device_hours": hours, **found})


def _numbers(evaluation: Mapping[str, Any], of: str) -> Quality:
    """Return the metrics by task: neither counts nor durations, which differ from one evaluation to the next."""

    def metrics(scores: Mapping[str, Any]) -> dict[str, float]:
        return {name: value for name, value in scores.items() if isinstance(value, float) and name not in NO_METRICS}

    return {task: metrics(scores[of]) for task, scores in evaluation.items() if scores.get(of)}


def _devices(resources: Mapping[str, Any]) -> float:
    """Return the number of workers, the most of a range, times the share of a GPU that each takes."""
    workers = resources["workers"]
    share = resources.get("gpus_per_worker", 1.0) if resources["device"] != "cpu" else 1.0
    return float(workers["max"] if isinstance(workers, dict) else workers) * float(share)
