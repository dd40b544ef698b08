"""The local paths that a request names, by field, and the check that they lie in `TINYCLIP_DATA_ROOTS`.

Workers check again when they open one: a pattern may find a link, and a folder may differ from node to node.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tinyclip.addresses import outside_problem
from tinyclip.schemas import EvaluationPost, FieldError, IndexSource, JobSpec
from tinyclip.schemas.spec import EvaluationTask, LinearProbeTask, ZeroShotTask

from tinyclip_server.problems import InvalidInput

LOCAL_DIR = "local-dir:"

Place = tuple[str, str]
"""A field's pointer, and the path, pattern or URI there."""


async def expect_inside(roots: Sequence[Path], places: Iterable[Place]) -> None:
    """Check that every local path lies below a root, if there are roots. Raises InvalidInput naming each that does not."""
    if not roots:
        return
    allowed = [str(root) for root in roots]
    errors = await asyncio.to_thread(_errors, list(places), allowed)  # links are followed on a disk that may be slow
    if errors:
        raise InvalidInput.of(errors, code="outside_data_roots")


def places_of_job(spec: JobSpec) -> Iterator[Place]:
    """Yield the places that a job spec names."""
    for at in spec.every_teacher():
        yield from places_of_model(f"{at.pointer}/model", at.spec.model)
        if at.spec.pretrained is not None and "/" in at.spec.pretrained:  # else a tag of open_clip's
            yield f"{at.pointer}/pretrained", at.spec.pretrained
    yield from _each("/data/train/shards", spec.data.train.shards)
    yield from _places_of_tasks("/evaluation/tasks", spec.evaluation.tasks)
    objectives = [("/objective", spec.objective)]
    objectives += [(f"/stages/{i}/objective", stage.objective) for i, stage in enumerate(spec.stages) if stage.objective]
    for pointer, objective in objectives:
        if objective.clusters is not None:
            yield f"{pointer}/clusters", objective.clusters


def places_of_evaluation(body: EvaluationPost) -> Iterator[Place]:
    """Yield the places that an evaluation names."""
    yield from places_of_model("/model", body.model)
    if body.against is not None:
        yield from places_of_model("/against", body.against)
    yield from _places_of_tasks("/tasks", body.tasks)


def places_of_index(source: IndexSource) -> Iterator[Place]:
    """Yield the places that an index is built from."""
    yield from _each("/source/shards", source.shards)


def places_of_model(pointer: str, model: str) -> Iterator[Place]:
    """Yield the folder of a `local-dir:` model."""
    if model.startswith(LOCAL_DIR):
        yield pointer, model.removeprefix(LOCAL_DIR)


def _places_of_tasks(pointer: str, tasks: Sequence[EvaluationTask]) -> Iterator[Place]:
    for number, task in enumerate(tasks):
        at = f"{pointer}/{number}"
        yield from _each(f"{at}/shards", task.shards)
        if isinstance(task, LinearProbeTask) and task.train_shards is not None:
            yield from _each(f"{at}/train_shards", task.train_shards)
        if isinstance(task, ZeroShotTask):
            for field, lines in (("classes", task.classes), ("templates", task.templates)):
                if isinstance(lines, str):
                    yield f"{at}/{field}", lines


def _each(pointer: str, patterns: str | list[str]) -> Iterator[Place]:
    if isinstance(patterns, str):
        yield pointer, patterns
    else:
        yield from ((f"{pointer}/{number}", pattern) for number, pattern in enumerate(patterns))


def _errors(places: Sequence[Place], roots: Sequence[str]) -> list[FieldError]:
    checked = ((pointer, path, outside_problem(path, roots)) for pointer, path in places)
    return [FieldError(pointer=pointer, value=path, message=problem) for pointer, path, problem in checked if problem is not None]
