"""The outcome of a search, what is wrong with it, and its differences from another one of the same request."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tinyclip.schemas import JobState
from tinyclip.schemas.searches import Candidate, Search

from bench.chaos.outcome import wrong_history
from bench.chaos.search_runs import RunningSearch, TrialJob

REFERENCE = re.compile(r"(?:registry:)?[\w.-]+@(\d+)")


@dataclass
class TrialOutcome:
    """A trial; the fields, except those of `OWN`, are the same in every run of a search."""

    number: int
    rung: int
    settings: dict[str, Any]
    spec: dict[str, Any]
    """The job's spec. It names trials in place of versions: those that end at the same time may swap their numbers."""
    state: str
    quality: dict[str, Any]
    params: int | None
    macs: int | None
    bytes: int | None
    layout: dict[str, Any] | None
    student: str
    """SHA-256 of the weights' file."""
    job: str
    attempts: int
    restarts: int
    """Times that a worker group continued from a checkpoint or, before the first one, began again."""
    lost_steps: int
    """Steps that were trained again after their progress had been reported."""


OWN = ("job", "attempts", "restarts", "lost_steps")
"""Fields of a trial that depend on the faults."""
TIMED = "ms_per_image"
"""The value beside a task's qualities that is a time."""


@dataclass
class SearchOutcome:
    """How a search ended; the fields are keys of `search_chaos.json`."""

    search: str
    state: str
    seconds: float
    trials: list[TrialOutcome]
    front: list[dict[str, Any]]
    """By candidate: trial, sizes, violations, and by engine its bytes and qualities; no latencies, which vary."""
    recommended: int | None
    """The trial of the recommended version."""
    reason: str
    wrong: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, saved: dict[str, Any]) -> "SearchOutcome":
        return cls(**{**saved, "trials": [TrialOutcome(**trial) for trial in saved["trials"]]})


def examine_search(search: RunningSearch, shown: Search, seconds: float) -> SearchOutcome:
    """Read all about a search that has ended, and check its history."""
    versions = {trial.model.version: trial.number for trial in shown.trials if trial.model is not None}
    wrong = list(wrong_jobs([(trial.number, trial.job) for trial in shown.trials], search.job_parents()))
    if [trial.number for trial in shown.trials] != list(range(search.post["budget"]["trials"])):
        wrong.append(f"it has the trials {[trial.number for trial in shown.trials]}")
    trials = []
    for trial in shown.trials:
        if trial.job is None:
            wrong.append(f"trial {trial.number} has no job: {trial.error}")
            continue
        job = search.job(trial.job)
        document = job.client.jobs.get(job.id)
        lines = [line for attempt in range(1, document.attempt + 1) for line in job.reported(attempt)]
        events = list(job.client.jobs.events(job.id))
        wrong += [f"trial {trial.number}: {what}" for what in (*wrong_history(job, document, events), *wrong_losses(lines))]
        restarts, lost = losses(lines)
        model = search.version(trial.model.version) if trial.model is not None else None
        trials.append(TrialOutcome(
            trial.number, trial.rung, dict(trial.settings),
            _without(search.inputs, with_trials(document.spec.model_dump(mode="json"), versions)),
            trial.state.value, dict(trial.quality), trial.params, trial.macs, trial.bytes,
            model.layout.model_dump(mode="json") if model is not None else None,
            _weights(job, trial.model.version if trial.model is not None else None), job.id, document.attempt, restarts, lost,
        ))  # fmt: skip
    front = [_candidate(one) for one in shown.front]
    recommended = shown.recommended.trial if shown.recommended is not None else None
    if shown.state is not JobState.SUCCEEDED:
        wrong.append(f"it {shown.state}: {shown.message}")
    reason = with_trials(shown.reason, versions)
    return SearchOutcome(search.id, shown.state.value, seconds, trials, front, recommended, reason, wrong)


def wrong_jobs(trials: Sequence[tuple[int, str | None]], parents: Mapping[str, tuple[str, int] | None]) -> Iterator[str]:
    """Yield what is wrong with the jobs of trials. `parents`: by the id of every job its search and trial."""
    ids = [job for _, job in trials if job is not None]
    if len(set(ids)) != len(ids):
        yield "two trials have the same job"
    if len({number for number, _ in trials}) != len(trials):
        yield "a trial is there twice"
    of_trials = {job: number for number, job in trials if job is not None}
    for job, parent in parents.items():
        if parent is None or of_trials.get(job) != parent[1]:
            yield f"{job} is a job of {parent}, and the trials have {of_trials.get(job)} for it"
    for job in set(ids) - set(parents):
        yield f"{job} of trial {of_trials[job]} does not exist"


def differences_of(outcome: SearchOutcome, undisturbed: SearchOutcome) -> Iterator[str]:
    """Yield the differences between two searches of the same request."""
    own, other = ({trial.number: trial for trial in each.trials} for each in (outcome, undisturbed))
    for number in sorted(own.keys() | other.keys()):
        if number not in own or number not in other:
            yield f"trial {number} is missing" if number not in own else f"trial {number} is not in the undisturbed search"
            continue
        yield from _differing(f"trial {number}", _shared(own[number]), _shared(other[number]))
    for name in ("state", "front", "recommended", "reason"):
        yield from _differing("the search", {name: getattr(outcome, name)}, {name: getattr(undisturbed, name)})


def losses(lines: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return how often training began again, and the steps that were trained twice."""
    steps = list(_losses(lines))
    return len(steps), sum(lost for lost, _ in steps)


def wrong_losses(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield each restart that did not continue from the newest checkpoint that had been reported, or a later one."""
    for lost, possible in _losses(lines):
        if lost > possible:
            yield f"a restart lost {lost} steps, and {possible} since the last checkpoint had been reported"


def with_trials(document: Any, versions: Mapping[int, int]) -> Any:
    """Return a document in which references to versions are those of their trials."""
    def name(found: re.Match[str]) -> str:
        return f"trial {versions[int(found[1])]}" if int(found[1]) in versions else found[0]

    return json.loads(REFERENCE.sub(name, json.dumps(document)))


def _losses(lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int]]:
    """Yield of each restart the steps that it lost, and those since the last reported checkpoint."""
    reached: dict[Any, int] = {}
    saved: dict[Any, int] = {}
    for line in lines:
        if "step" not in line["data"]:
            continue
        stage, step = line["stage"], int(line["data"]["step"])
        if line["type"] == "checkpoint":
            saved[stage] = max(saved.get(stage, 0), step)
        elif line["type"] == "worker.restarted" or (line["type"] == "progress" and step < reached.get(stage, 0)):
            # Progress of an earlier step without that event: there was no checkpoint to continue from.
            from_step = step if line["type"] == "worker.restarted" else 0
            before = max(reached.get(stage, 0), saved.get(stage, 0))
            yield max(0, before - from_step), before - saved.get(stage, 0)
            reached[stage] = step
        if line["type"] == "progress":
            reached[stage] = step


def _shared(trial: TrialOutcome) -> dict[str, Any]:
    quality = {task: {name: value for name, value in of.items() if name != TIMED} for task, of in trial.quality.items()}
    return {name: value for name, value in asdict(trial).items() if name not in OWN} | {"quality": quality}


def _differing(where: str, own: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    for name in own:
        if own[name] != other[name]:
            yield f"{where}: {name} is {own[name]}, and was {other[name]}"


def _candidate(candidate: Candidate) -> dict[str, Any]:
    engines = {one.engine: {"bytes": one.bytes, "quality": one.quality} for one in candidate.measurements}
    return {
        "trial": candidate.trial, "params": candidate.params, "macs": candidate.macs, "is_feasible": candidate.is_feasible,
        "violations": candidate.violations, "engines": engines,
    }


def _without(folder: str, document: Any) -> Any:
    """Return a document with paths relative to the folder of the inputs, which each run has elsewhere."""
    return json.loads(json.dumps(document).replace(f"{folder}/", ""))


def _weights(job: TrialJob, version: int | None) -> str:
    if version is None:
        return ""
    weights = job.files.read(f"models/{job.spec['name']}/{version}/open_clip_model.safetensors")
    return hashlib.sha256(weights).hexdigest()
