"""What each model takes each image of a zero-shot task for, and where the image lies; for comparisons of models."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from tinyclip.artifacts.predictions import MAX_CHARACTERS, MAX_IMAGES, ModelPredictions, TaskPredictions
from tinyclip.schemas import KeptPredictions
from tinyclip.schemas.spec import EvaluationTask
from torch import Tensor

from tinyclip_workers.data.samples import Sample, printable
from tinyclip_workers.data.shards import read_placed
from tinyclip_workers.evaluation.metrics import row_chunks
from tinyclip_workers.runtime.user_files import open_file

PredictedTasks = dict[str, TaskPredictions]
"""By the names of the results."""

_PLACE = "__place__"


class Place(NamedTuple):
    """Where a sample lies in its decompressed shard."""

    url: str
    start: int
    end: int


def read_with_places(url: str) -> Iterator[Sample]:
    """Yield the samples of a shard as `read_shard`, with their places."""
    with open_file(url) as file:
        for sample, start, end in read_placed(url, file):
            sample[_PLACE] = Place(url, start, end)
            yield sample


def place_of(sample: Sample) -> Place | None:
    """Return the place of a sample that was read by `read_with_places`, None for another."""
    place: Place | None = sample.get(_PLACE)
    return place


def most_likely(scores_NC: Tensor, temperature: float) -> ModelPredictions:
    """Return the class of the highest score of each image, and its share in a softmax of the scores times `temperature`."""
    rows: list[int] = []
    shares: list[float] = []
    for part_BC in row_chunks(scores_NC):
        row_B = part_BC.topk(min(5, part_BC.shape[1]), dim=1).indices[:, 0]  # as `metrics.classification`, also for equal scores
        share_B = (temperature * part_BC).softmax(dim=1).gather(1, row_B[:, None])[:, 0]
        rows += row_B.tolist()
        shares += share_B.tolist()
    return ModelPredictions(rows=rows, scores=[round(share, 4) for share in shares])


def task_predictions(
    task: EvaluationTask,
    classes: Sequence[str],
    keys: Sequence[str],
    places: Sequence[Place | None],
    labels_N: Tensor,
    models: Mapping[str, ModelPredictions],
) -> TaskPredictions:
    """Return the predictions for the first images of a task, as many as are kept."""
    shown = [printable(key) for key in keys[:MAX_IMAGES]]
    count = sum(total <= MAX_CHARACTERS for total in accumulate(map(len, shown)))
    kept = [place for place in places[:count] if place is not None]
    assert len(kept) == count, "tasks are read with places"
    row = {url: number for number, url in enumerate(dict.fromkeys(place.url for place in kept))}
    return TaskPredictions(
        task=task.name, classes=list(classes), image_key=list(task.image_key), images=len(keys), shards=list(row),
        shard=[row[place.url] for place in kept], start=[place.start for place in kept],
        length=[place.end - place.start for place in kept], keys=shown[:count], labels=labels_N[:count].tolist(),
        models={
            name: ModelPredictions(rows=found.rows[:count], scores=found.scores[:count]) for name, found in models.items()
        },
    )


def describe(predictions: TaskPredictions, packed: bytes, evaluation: str | None = None) -> KeptPredictions:
    """Return the entry of a file of predictions in a version's document."""
    return KeptPredictions(
        images=predictions.images, kept=len(predictions.keys), teacher="teacher" in predictions.models, evaluation=evaluation,
        sha256=hashlib.sha256(packed).hexdigest(), images_sha256=predictions.images_digest(),
    )
