"""Comparisons of models image by image, from the files of predictions that evaluations have written."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from tinyclip.artifacts.paths import evaluation_predictions, version_predictions
from tinyclip.artifacts.predictions import ModelPredictions, TaskPredictions, UnreadablePredictions
from tinyclip.schemas import KeptPredictions, ModelVersion, PredictedImage, PredictionFilter
from tinyclip.schemas.models import ClassCounts, Prediction, PredictionCounts

from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.problems import ApiError, Conflict, InvalidInput, NotFound

KEPT_IMAGES = 400_000
"""Images of the files that were read last and stay in memory; 100,000 take some 30 MB."""
STUDENT, TEACHER = "student", "teacher"


@dataclass(frozen=True)
class ComparedPredictions:
    """One model of a comparison: a version, or its teacher."""

    name: str
    version: ModelVersion
    role: str = STUDENT

    def kept(self, task: str) -> KeptPredictions | None:
        """Return the entry of a task's predictions by this model, None if there are none."""
        kept = self.version.predictions.get(task)
        return None if kept is None or (self.role == TEACHER and not kept.teacher) else kept


class PredictionFiles:
    """Reads files of predictions, one at a time, and keeps the last ones."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, TaskPredictions] = OrderedDict()
        self._one = asyncio.Lock()

    async def read(self, store: AsyncArtifactsStore, version: ModelVersion, task: str, kept: KeptPredictions) -> TaskPredictions:
        """Raises NotFound if the file is gone, ApiError if it is damaged, OSError."""
        async with self._one:
            if kept.sha256 not in self._files:
                path = predictions_path(version, task, kept)
                data = await store.read_if_exists(path)
                if data is None:
                    raise NotFound(f"{store.uri(path)} is missing in the artifacts store", code="file_missing")
                try:
                    self._files[kept.sha256] = await asyncio.to_thread(TaskPredictions.unpack, data)
                except UnreadablePredictions as error:
                    raise ApiError(f"{store.uri(path)} is {error}", code="damaged_predictions") from error
            self._files.move_to_end(kept.sha256)
            while len(self._files) > 1 and sum(len(file.keys) for file in self._files.values()) > KEPT_IMAGES:
                self._files.popitem(last=False)
            return self._files[kept.sha256]


_files_of: WeakKeyDictionary[AsyncArtifactsStore, PredictionFiles] = WeakKeyDictionary()


def files_of(store: AsyncArtifactsStore) -> PredictionFiles:
    """Return the files of one store that were read last."""
    return _files_of.setdefault(store, PredictionFiles())


def predictions_path(version: ModelVersion, task: str, kept: KeptPredictions) -> str:
    if kept.evaluation is not None:
        return evaluation_predictions(kept.evaluation, task)
    return version_predictions(version.name, version.version, task)


def comparable_tasks(models: Sequence[ComparedPredictions]) -> list[str]:
    """Return the tasks that all models have predictions of for the same images, in the order of the first one's."""
    return [task for task in models[0].version.predictions if problem(models, task) is None]


def problem(models: Sequence[ComparedPredictions], task: str) -> ApiError | None:
    """Return why models cannot be compared on a task; None if they can."""
    for model in models:
        if model.kept(task) is None:
            message = f"{model.name} has no predictions of {task}: evaluate it on the task"
            if model.role == TEACHER:
                message = f"{model.name} has no predictions of {task}: evaluate {_reference(model.version)} against it"
            return InvalidInput.field("/task", task, message, code="no_predictions")
    digests = [kept.images_sha256 for model in models if (kept := model.kept(task)) is not None]
    other = next((model for model, digest in zip(models, digests, strict=True) if digest != digests[0]), None)
    if other is None:
        return None
    return Conflict(
        f"{models[0].name} and {other.name} were evaluated on other images or classes as {task}; evaluate both on one task",
        code="other_images",
    )


def _reference(version: ModelVersion) -> str:
    return f"{version.name}@{version.version}"


class Joined:
    """Predictions of several models for the same images."""

    def __init__(self, images: TaskPredictions, models: Sequence[ModelPredictions]) -> None:
        self._images, self._models = images, models

    def row_of(self, label: str) -> int:
        """Return the row of a class. Raises InvalidInput."""
        try:
            return self._images.classes.index(label)
        except ValueError:
            message = f"{self._images.task} has no class of this name"
            raise InvalidInput.field("/label", label, message, code="no_such_label") from None

    def of_class(self, row: int | None) -> Sequence[int]:
        """Return the numbers of the images of a class, or of all."""
        labels = self._images.labels
        return range(len(labels)) if row is None else [number for number, label in enumerate(labels) if label == row]

    def counts(self, numbers: Sequence[int]) -> PredictionCounts:
        labels, (first, second) = self._images.labels, self._pair()
        right = Counter((first[n] == labels[n], second[n] == labels[n]) for n in numbers)
        return PredictionCounts(
            images=len(numbers), both_right=right[True, True], only_first=right[True, False], only_second=right[False, True],
            both_wrong=right[False, False], differ=sum(first[n] != second[n] for n in numbers),
        )

    def shown(self, numbers: Sequence[int], show: PredictionFilter) -> Sequence[int]:
        """Return the numbers of the images in a category."""
        labels, (first, second) = self._images.labels, self._pair()
        tests: dict[PredictionFilter, Callable[[int], bool]] = {
            "differ": lambda n: first[n] != second[n],
            "only_first": lambda n: first[n] == labels[n] != second[n],
            "only_second": lambda n: second[n] == labels[n] != first[n],
            "both_wrong": lambda n: first[n] != labels[n] != second[n],
        }
        return numbers if show == "all" else list(filter(tests[show], numbers))

    def classes(self) -> list[ClassCounts]:
        """Return the classes that occur, each with the images that each model gets right."""
        labels = self._images.labels
        total = Counter(labels)
        right = [Counter(row for row, label in zip(model.rows, labels, strict=True) if row == label) for model in self._models]
        return [
            ClassCounts(label=name, images=total[row], correct=[each[row] for each in right])
            for row, name in enumerate(self._images.classes)
            if total[row]
        ]

    def image(self, number: int) -> PredictedImage:
        images = self._images
        label = images.labels[number]
        predictions = [
            Prediction(
                label=images.classes[model.rows[number]], score=model.scores[number], correct=model.rows[number] == label
            )
            for model in self._models
        ]
        return PredictedImage(number=number, key=images.keys[number], label=images.classes[label], predictions=predictions)

    def _pair(self) -> tuple[Sequence[int], Sequence[int]]:
        return self._models[0].rows, self._models[min(1, len(self._models) - 1)].rows
