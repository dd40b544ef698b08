"""Takes in what has happened to a search since the last round: trials that have ended, and measurements."""

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.searches import CostsRequest, Finalists
from tinyclip.schemas import Constraint, JobState, SearchPhase, SearchPost
from tinyclip.schemas.searches import Hardware

from tinyclip_server.database.tables import MeasurementRow, SearchRow
from tinyclip_server.searches import repository, service
from tinyclip_server.searches.lifecycle import change_state, record

S = JobState

ENDED = ("succeeded", "failed")
"""States of a measurement whose result is not taken in yet."""
KEPT = "kept"
"""The state of one whose result is."""


async def needs_intake(session: AsyncSession, search: SearchRow) -> bool:
    """Return whether there is something to take in."""
    if search.state == S.QUEUED or await repository.has_ended_trials(session, search.id):
        return True
    if search.state != S.RUNNING:  # a measurement that ends meanwhile is taken in when the search goes on
        return False
    measurements = await repository.measurements(session, search.id)
    return any(row.state in ENDED for row in measurements) or (_has_to_measure(search) and not measurements)


async def take_in(session: AsyncSession, search: SearchRow) -> None:
    """Begin a queued search, keep the outcomes of trials, and take in measurements. The search is locked."""
    if search.state == S.QUEUED:
        change_state(session, search, S.RUNNING, "")
    await service.keep_outcomes(session, search)
    measurements = await repository.measurements(session, search.id, lock=True) if search.state == S.RUNNING else []
    for row in measurements:
        if row.state in ENDED:
            await _keep_measurement(session, search, row)
    if _has_to_measure(search) and not measurements:
        await _begin_costs(session, search)
    await session.flush()


def hardware_of(constraints: list[Constraint]) -> list[Hardware]:
    """Return the latencies that the constraints name, each once."""
    found = [
        Hardware(engine=one.engine, batch=one.batch, tower=one.tower, threads=one.threads, device=one.device)
        for one in constraints
        if one.latency_ms is not None
    ]
    return [one for index, one in enumerate(found) if one not in found[:index]]


async def _keep_measurement(session: AsyncSession, search: SearchRow, row: MeasurementRow) -> None:
    if row.state == "failed":
        row.state = KEPT
        record(session, search, f"{row.kind}.failed", row.message)
        if search.state == S.RUNNING:
            await service.end(session, search, S.FAILED, f"the measurement of {row.kind} failed: {row.message}")
        return
    row.state = KEPT
    left_out: dict[int, dict[str, str]] = {}
    if row.kind == "costs":
        search.costs, search.phase = row.result, SearchPhase.TRIALS
    else:
        result = Finalists.model_validate(row.result)
        measured, left_out = result.measurements, result.left_out
        asked = {each["trial"] for each in row.request["finalists"]}
        for trial in await repository.trials(session, search.id):
            if trial.number in asked:
                trial.measurements = [each.model_dump(mode="json") for each in measured.get(trial.number, [])]
    data = {"left_out": {str(trial): reasons for trial, reasons in left_out.items()}} if left_out else {}
    record(session, search, f"{row.kind}.finished", f"the measurement of {row.kind} finished", data=data)


def _has_to_measure(search: SearchRow) -> bool:
    return search.phase == SearchPhase.MEASURING and search.state == S.RUNNING


async def _begin_costs(session: AsyncSession, search: SearchRow) -> None:
    post = SearchPost.model_validate(search.post)
    teacher = post.spec.first_teacher
    assert teacher is not None  # as `searches/checks.py` has checked
    request = CostsRequest.model_validate({
        "teacher": teacher.model_dump(include={"model", "pretrained", "language"}), "hardware": hardware_of(post.constraints),
        "seed": post.seed, "attempt": 0,
    })  # fmt: skip
    await service.begin_measurement(session, search, "costs", request)
    record(session, search, "costs.begun", "the speed of layouts is measured")
