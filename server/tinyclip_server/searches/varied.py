"""The fields that a search varies: each value is tried in the spec before the search is created."""

import math
from collections.abc import Iterator
from typing import Any

from tinyclip.schemas import FieldError, JobSpec, Range, SearchPost
from tinyclip.validation import pointer_of

from tinyclip_server.jobs import specs
from tinyclip_server.problems import InvalidInput

GRID_STEPS = 5
"""Values of a range in a grid, unless it says another number."""
CHECKED_VALUES = 100
"""Values of varied fields that are tried in the spec: each is a validation of a whole spec."""
CHOSEN = ("name", "student", "prune", "inherit", "inherit_from", "select")
"""Fields of a stage that a search for sizes sets."""


def varied_errors(body: SearchPost) -> Iterator[FieldError]:
    """Return fields that a search cannot vary, and grids that are too large."""
    size = _grid_size(body)
    if body.strategy == "grid" and size > body.budget.trials:
        message = f"have {size:,} combinations, more than budget.trials ({body.budget.trials}); give fewer values, or raise it"
        yield FieldError(pointer="/vary", value=None, message=message)
    for path, values in body.vary.items():
        pointer = pointer_of(["vary", path])
        if problem := _problem_of(path, body):
            yield FieldError(pointer=pointer, value=None, message=problem)
        if isinstance(values, Range) and values.integer and values.max - values.min < 1:
            message = f"has no two whole numbers between {values.min:g} and {values.max:g}"
            yield FieldError(pointer=pointer, value=None, message=message)


def _problem_of(path: str, body: SearchPost) -> str | None:
    """Return why a search cannot vary a field, whatever its values."""
    head, *rest = path.split(".")
    if head == "evaluation":
        return "is what trials are compared by; it has to be the same for all"
    if not body.constraints:
        return None
    if head in ("teacher", "teachers"):
        return "is what the sizes of students are derived from, and there are constraints; search with one teacher after another"
    last = len(body.spec.stages) - 1
    if head == "stages" and rest[:1] != [str(last)]:
        return f"has no effect, as there are constraints: students are cut and trained as in the last stage, stages.{last}"
    if head == "stages" and rest[1:2] and rest[1] in CHOSEN:
        return "is the search's to choose, as there are constraints; remove it, or the constraints"
    return None


def _grid_size(body: SearchPost) -> int:
    return math.prod(
        (values.steps or GRID_STEPS) if isinstance(values, Range) else len(values) for values in body.vary.values()
    )


def try_values(body: SearchPost) -> None:
    """Try values of each varied field in the spec, the first of each field before the others. Raises InvalidInput."""
    errors: list[FieldError] = []
    for path, place, value in _values(body):
        try:
            specs.with_changes(_small(body.spec, path), {path: value})
        except InvalidInput as error:
            pointer = pointer_of(["vary", path, *place])
            errors += [each.model_copy(update={"pointer": pointer}) for each in error.errors[:1]]
    if errors:
        unique = {error.pointer: error for error in errors}
        raise InvalidInput.of(list(unique.values()))


def _values(body: SearchPost) -> list[tuple[str, list[str | int], Any]]:
    """Return paths, places of values below the path, and values: at most CHECKED_VALUES."""
    by_rank: list[tuple[int, str, list[str | int], Any]] = []
    for path, values in body.vary.items():
        if isinstance(values, Range):
            ends: list[tuple[list[str | int], float]] = [(["min"], values.min), (["max"], values.max), ([], _between(values))]
            by_rank += [
                (rank, path, place, round(value) if values.integer else value) for rank, (place, value) in enumerate(ends)
            ]
        else:
            by_rank += [(rank, path, [rank], value) for rank, value in enumerate(values[:CHECKED_VALUES])]
    first = sorted(by_rank, key=lambda each: each[0])[:CHECKED_VALUES]
    return [(path, place, value) for _, path, place, value in first]


def _between(values: Range) -> float:
    """Return a value inside of a range, which is no whole number as a rule."""
    return values.min + 0.381966 * (values.max - values.min)


def _small(spec: JobSpec, path: str) -> dict[str, Any]:
    """Return a spec without what may be large, unless the path leads there."""
    kept = path.partition(".")[0]
    return spec.model_dump(mode="json", exclude={"evaluation", "labels"} - {kept})
