"""What a search is asked for, checked before it is created: every error names the field."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from tinyclip.artifacts.searches import SearchRecord
from tinyclip.schemas import Constraint, FieldError, Plan, SearchPlan, SearchPost

from tinyclip_server.http.services import Services
from tinyclip_server.jobs import specs
from tinyclip_server.problems import InvalidInput
from tinyclip_server.searches.constraints import constraint_errors
from tinyclip_server.searches.trials import plain_layout
from tinyclip_server.searches.varied import try_values, varied_errors


@dataclass(frozen=True)
class CheckedSearch:
    """A search that can be created."""

    post: SearchPost
    """With the versions of teachers and data set pinned."""
    plan: SearchPlan


async def check(services: Services, project: str, body: SearchPost) -> CheckedSearch:
    """Check a request and plan its spec. Raises InvalidInput, TooManyRequests, Unavailable."""
    if errors := [*constraint_errors(body), *varied_errors(body)]:
        raise InvalidInput.of(errors)
    await asyncio.to_thread(try_values, body)
    try:
        planned = await specs.plan(services, project, body.spec)
    except InvalidInput as error:
        raise _below(error, "/spec") from error
    post = body.model_copy(update={"spec": planned.spec})
    return CheckedSearch(post, await _foreseen(services, project, post, planned.plan))


async def _foreseen(services: Services, project: str, post: SearchPost, plan: Plan) -> SearchPlan:
    """Return how long a search takes at most. Raises InvalidInput if no student can meet a constraint."""
    teacher = plain_layout(plan.teacher.layout) if plan.teacher is not None else None
    record = SearchRecord(id="", post=post, teacher=teacher, steps=plan.steps, device_hours=plan.device_hours)
    bounds, estimate = await services.planner.foresee(project, record)
    errors = [
        FieldError(pointer=bound.pointer, value=bound.limit, message=bound.message) for bound in bounds if not bound.is_possible
    ]
    if errors:
        raise InvalidInput.of(errors, code="impossible_search")
    hours = estimate.device_hours or 0.0
    warnings = [*plan.warnings, *_warnings(post, plan)]
    return SearchPlan(
        trials=estimate.trials, trials_by_rung=estimate.trials_by_rung, device_hours=hours, plan=plan, warnings=warnings,
        steps=estimate.steps, hours=estimate.hours,
    )  # fmt: skip


def _warnings(post: SearchPost, plan: Plan) -> Iterator[str]:
    hours = post.budget.device_hours
    if hours is not None and hours < plan.device_hours:
        yield f"a job like the spec takes about {plan.device_hours:.3g} device-hours, the budget has {hours:g}"
    if post.constraints and len(post.spec.stages) > 1:
        yield f"students are cut and trained as in the last stage, {post.spec.stages[-1].name}; the stages before it are left out"


def _below(error: InvalidInput, pointer: str) -> InvalidInput:
    """Return an error about a part of the body as one about the body."""
    if not error.errors:
        return error
    errors = [each.model_copy(update={"pointer": f"{pointer}{each.pointer}"}) for each in error.errors]
    return InvalidInput.of(errors, code=error.code)


def needs_costs(constraints: list[Constraint]) -> bool:
    """Return whether the speed of layouts has to be measured first."""
    return any(constraint.latency_ms is not None for constraint in constraints)
