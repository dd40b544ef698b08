"""`/v1/compare/predictions`: images that models get right or wrong; and thumbnails of a task's images."""

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import PredictedImage, PredictionComparison, PredictionFilter
from tinyclip.schemas.models import ClassCounts, PredictionCounts

from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.http.bodies import BoundedRoute
from tinyclip_server.http.conditions import IfNoneMatch, matches, quoted
from tinyclip_server.http.pagination import Paging, page_token
from tinyclip_server.http.resources import THUMBNAIL_RESPONSES
from tinyclip_server.http.services import Project, ReadSession, ServicesDep
from tinyclip_server.models import service
from tinyclip_server.models.predictions import TEACHER, ComparedPredictions, Joined, comparable_tasks, files_of, problem
from tinyclip_server.problems import InvalidInput, NotFound

router = APIRouter(route_class=BoundedRoute, tags=["models"])

MAX_COMPARED = 8


@router.get("/compare/predictions", response_model=PredictionComparison)
async def compare(
    services: ServicesDep,
    session: ReadSession,
    project: Project,
    paging: Paging,
    models: Annotated[str, Query(description="a@1,b@best,…; `teacher` is that of the version before it")],
    task: Annotated[str | None, Query(description="by default the first that all have in common")] = None,
    show: Annotated[PredictionFilter, Query(description="by the first two: which is right, or whether they differ")] = "all",
    label: Annotated[str | None, Query(description="only images of this class")] = None,
    classes: Annotated[bool, Query(description="count the images that each model gets right, for each class")] = False,
) -> PredictionComparison:
    """Compare what up to 8 models take each image of a zero-shot task for.

    All must have been evaluated on the same images: 409 if they were not, 422 for one without predictions.
    """
    compared = await _resolve(session, project, models)
    await session.close()  # the store may be slow: no connection is held meanwhile
    tasks = comparable_tasks(compared)
    if task is None and not tasks:
        names = ", ".join(model.name for model in compared)
        message = f"no task has predictions of {names} for the same images"
        raise InvalidInput.field("/models", models, message, code="no_predictions")
    name = task or tasks[0]
    if (refused := problem(compared, name)) is not None:
        raise refused
    joined, kept = await _join(services.store, compared, name), compared[0].version.predictions[name]
    wanted = _Wanted(show, label, classes, paging.after_number(), paging.page_size)
    page = await asyncio.to_thread(_page, joined, wanted)
    return PredictionComparison(
        models=[model.name for model in compared], task=name, tasks=tasks, images=kept.images, kept=kept.kept, counts=page.counts,
        classes=page.classes, items=page.items, next_page_token=None if page.next is None else page_token(page.next),
    )


@router.get(
    "/models/{name}/versions/{version}/tasks/{task}/images/{number}/thumbnail",
    response_class=Response,
    responses=THUMBNAIL_RESPONSES,
)
async def thumbnail(
    name: str,
    version: str,
    task: str,
    number: Annotated[int, Path(ge=0, lt=2**53)],
    services: ServicesDep,
    session: ReadSession,
    project: Project,
    if_none_match: IfNoneMatch = None,
    size: Annotated[int, Query(ge=16, le=1024, description="the most pixels of a side")] = 256,
) -> Response:
    """Get a small JPEG of an image of a task, by its number in `/v1/compare/predictions`."""
    found = await service.get_version(session, project, name, version)
    await session.close()
    kept = found.predictions.get(task)
    if kept is None:
        message = f"{found.name}@{found.version} has no predictions of this task"
        raise NotFound(message, code="no_predictions")
    etag = f"{kept.images_sha256[:32]}-{number}-{size}"
    headers = {"ETag": quoted(etag), "Cache-Control": "private, max-age=86400"}
    if matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    images = await files_of(services.store).read(services.store, found, task, kept)
    if number >= len(images.keys):
        raise NotFound(f"the predictions of {task} have {len(images.keys):,} images, from 0", code="no_such_image")
    jpeg = await services.planner.image_thumbnail(
        project, url=images.shards[images.shard[number]], key=images.keys[number], start=images.start[number],
        length=images.length[number], image_key=images.image_key, size=size,
    )
    return Response(jpeg, headers=headers, media_type="image/jpeg")


@dataclass(frozen=True)
class _Wanted:
    show: PredictionFilter
    label: str | None
    classes: bool
    start: int
    page_size: int


@dataclass(frozen=True)
class _Compared:
    counts: PredictionCounts
    classes: list[ClassCounts]
    items: list[PredictedImage]
    next: int | None


def _page(joined: Joined, wanted: _Wanted) -> _Compared:
    """Return a page of images and the counts of all. Raises InvalidInput for an unknown label."""
    numbers = joined.of_class(None if wanted.label is None else joined.row_of(wanted.label))
    shown = joined.shown(numbers, wanted.show)
    first = bisect_left(shown, wanted.start)
    end = first + wanted.page_size
    return _Compared(
        counts=joined.counts(numbers), classes=joined.classes() if wanted.classes else [],
        items=[joined.image(number) for number in shown[first:end]], next=shown[end] if end < len(shown) else None,
    )


async def _resolve(session: AsyncSession, project: str, models: str) -> list[ComparedPredictions]:
    """Raises InvalidInput, NotFound."""
    named = [part.strip() for part in models.split(",") if part.strip()]
    if not 1 <= len(named) <= MAX_COMPARED:
        raise InvalidInput.field("/models", models, f"name 1 to {MAX_COMPARED} models, separated by commas")
    found: list[ComparedPredictions] = []
    for one in named:
        if one != TEACHER:
            name, number = await service.resolve(session, project, one, "/models")
            version = await service.get_version(session, project, name, str(number))
            found.append(ComparedPredictions(f"{name}@{number}", version))
        elif not found or found[-1].version.teacher is None:
            raise InvalidInput.field("/models", models, "name a version with a teacher before its teacher")
        else:
            version = found[-1].version
            found.append(ComparedPredictions(version.teacher or TEACHER, version, TEACHER))
    return found


async def _join(store: AsyncArtifactsStore, compared: Sequence[ComparedPredictions], task: str) -> Joined:
    """Read the predictions of models that can be compared."""
    files = [await files_of(store).read(store, model.version, task, model.version.predictions[task]) for model in compared]
    return Joined(files[0], [file.models[model.role] for file, model in zip(files, compared, strict=True)])
