"""Does what the engine advises: begins trials and measurements, and ends the search."""

from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import EvaluatedModel
from tinyclip.artifacts.searches import Advice, BeginTrial, Finalist, FinalistsRequest
from tinyclip.schemas import JobSpec, JobState, SearchPhase, SearchPost
from tinyclip.schemas.spec import TeacherSpec

from tinyclip_server.database.tables import SearchRow, TrialRow
from tinyclip_server.http.services import Services
from tinyclip_server.jobs import service as jobs
from tinyclip_server.jobs import specs
from tinyclip_server.jobs.specs import PlannedJob
from tinyclip_server.orchestration.searches.intake import hardware_of
from tinyclip_server.problems import ApiError, InvalidInput, TooManyRequests, Unavailable
from tinyclip_server.searches import repository, service
from tinyclip_server.searches.lifecycle import record
from tinyclip_server.searches.trials import TrialOutcome

REGISTRY = "registry:"


@dataclass(frozen=True)
class NotPlanned:
    """Why a trial cannot be planned."""

    reason: str


PlannedTrials = list[tuple[BeginTrial, PlannedJob | NotPlanned]]


async def plan_trials(services: Services, project: str, advice: Advice) -> PlannedTrials:
    """Plan the jobs of the trials to begin. Raises TooManyRequests, Unavailable."""
    return [(trial, await _plan(services, project, trial)) for trial in advice.begin]


async def obey(session: AsyncSession, search: SearchRow, advice: Advice, planned: PlannedTrials) -> None:
    """Do what is advised, in one transaction; the search is locked and running."""
    for trial, job in planned:
        await _begin(session, search, trial, job)
    if advice.begin:
        search.phase = SearchPhase.TRIALS
    if advice.measure:
        await _measure(session, search, advice.measure)
    if advice.message:
        search.message = advice.message
    if advice.finished is not None:
        search.result = advice.finished.model_dump(mode="json")
        await service.end(session, search, JobState.SUCCEEDED, advice.finished.reason)
    await session.flush()


async def _plan(services: Services, project: str, trial: BeginTrial) -> PlannedJob | NotPlanned:
    try:
        spec = JobSpec.model_validate(trial.spec)
        return await specs.plan(services, project, spec)
    except ValidationError as error:
        return NotPlanned(InvalidInput.document(error, trial.spec, JobSpec).detail)
    except (TooManyRequests, Unavailable):
        raise
    except ApiError as error:
        return NotPlanned(error.detail)


async def _begin(session: AsyncSession, search: SearchRow, trial: BeginTrial, planned: PlannedJob | NotPlanned) -> None:
    if await session.get(TrialRow, (search.id, trial.number)) is not None:
        return
    row = TrialRow(search_id=search.id, number=trial.number, rung=trial.rung, settings=trial.settings)
    if isinstance(planned, PlannedJob):
        try:
            async with session.begin_nested():
                job = await jobs.create(session, search.project, planned, search=search.id, trial=trial.number)
        except ApiError as error:  # its data set was deleted meanwhile, for example
            planned = NotPlanned(error.detail)
        else:
            row.job_id = job.id
            record(session, search, "trial.begun", f"trial {trial.number} begins", trial=trial.number, data={"job": job.id})
    if isinstance(planned, NotPlanned):
        row.outcome = TrialOutcome(state=JobState.FAILED, error=planned.reason).model_dump(mode="json")
        record(session, search, "trial.failed", f"trial {trial.number} cannot be planned: {planned.reason}", trial=trial.number)
    session.add(row)


async def _measure(session: AsyncSession, search: SearchRow, numbers: list[int]) -> None:
    """Begin to measure these trials; those without a version are measured already: they have nothing to measure."""
    finalists = []
    for trial in await repository.trials(session, search.id):
        model = TrialOutcome.model_validate(trial.outcome).model if trial.outcome is not None else None
        if trial.number in numbers and model is not None:
            name = f"{model.name}@{model.version}"
            finalists.append(Finalist(
                trial=trial.number, model=EvaluatedModel(name=name, source=TeacherSpec(model=f"{REGISTRY}{name}"))
            ))  # fmt: skip
        elif trial.number in numbers:
            trial.measurements = []
    post = SearchPost.model_validate(search.post)
    search.phase = SearchPhase.FINALISTS
    listed = ", ".join(str(number) for number in numbers)
    record(session, search, "finalists.begun", f"trials {listed} are measured in every engine", data={"trials": numbers})
    if finalists:
        request = FinalistsRequest(
            finalists=finalists, hardware=hardware_of(post.constraints), tasks=post.spec.evaluation.tasks, attempt=0
        )
        await service.begin_measurement(session, search, "finalists", request)
