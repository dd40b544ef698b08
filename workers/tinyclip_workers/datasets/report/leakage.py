"""Images of evaluation tasks among the training images: the same ones, and near-duplicates.

A few are in most data sets from the web: the CLIP paper (arXiv 2103.00020, section 5) found a median of 2.2% of the images of 35
evaluation sets in its training data, with little effect on the results.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tinyclip.schemas import JSON
from tinyclip.schemas.datasets import Finding
from tinyclip.schemas.spec import EvaluationTask

from tinyclip_workers.data.index.rows import Use
from tinyclip_workers.datasets.images.checks import MAX_COLOR_DIFFERENCE, SAME_COLOR_DIFFERENCE, THUMBNAIL_BYTES
from tinyclip_workers.datasets.report.duplicates import color_difference, sample_place
from tinyclip_workers.datasets.report.near import NearHashes
from tinyclip_workers.datasets.report.rules import Severity, make_finding, part_of
from tinyclip_workers.datasets.scan.merging import Parts
from tinyclip_workers.datasets.statistics import MAX_EXAMPLES, example

NONE = 256
"""A difference of colours that is larger than any."""
SAME_WARNING, NEAR_WARNING, ERROR = 0.02, 0.05, 0.2


def leakage_findings(parts: Parts, images: pa.Table, tasks: Sequence[EvaluationTask]) -> list[Finding]:
    """Return a finding for each task with images among the training images. Raises OSError."""
    if not len(images):
        return []
    hash_T = images.column("image").to_numpy()
    thumbnail_T = np.frombuffer(b"".join(images.column("thumbnail").to_pylist()), np.uint8).reshape(-1, THUMBNAIL_BYTES)
    difference_T, place_T2 = _nearest(parts, hash_T, thumbnail_T)
    selected = images.column("tasks").to_pylist()
    keys = images.column("key").to_pylist()
    findings = []
    for number, task in enumerate(tasks):
        rows = np.array([row for row, numbers in enumerate(selected) if number in numbers], dtype=np.int64)
        found = rows[difference_T[rows] <= MAX_COLOR_DIFFERENCE]
        if len(found):
            examples = [_example(parts, keys[row], place_T2[row], difference_T[row]) for row in found[:MAX_EXAMPLES]]
            same = int((difference_T[found] <= SAME_COLOR_DIFFERENCE).sum())
            findings.append(_finding(task, len(found), same, len(rows), examples))
    return findings


def _nearest(
    parts: Parts, hash_T: NDArray[np.uint64], thumbnail_T: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each task image the difference of colours to the nearest training image, and shard and row of that (T, 2)."""
    known = NearHashes(hash_T)
    difference_T, place_T2 = np.full(len(hash_T), NONE, dtype=np.int64), np.zeros((len(hash_T), 2), np.int64)
    for shard, (marks, _) in enumerate(parts):
        row_N = np.flatnonzero(marks.has_image_N & (marks.use_N == Use.TRAINING))
        near, image = known.find(marks.hash_N[row_N])
        if not len(near):
            continue
        rows, inverse = np.unique(row_N[near], return_inverse=True)
        differences = color_difference(marks.thumbnails(rows), inverse, thumbnail_T, image)
        for pair in np.argsort(-differences, kind="stable"):  # the smallest difference of an image comes last
            if differences[pair] < difference_T[image[pair]]:
                difference_T[image[pair]], place_T2[image[pair]] = differences[pair], (shard, row_N[near[pair]])
    return difference_T, place_T2


def _finding(task: EvaluationTask, count: int, same: int, total: int, examples: list[JSON]) -> Finding:
    share = count / total
    serious = share >= NEAR_WARNING or same / total >= SAME_WARNING
    severity: Severity = "error" if share >= ERROR else "warning" if serious else "info"
    identical = f" ({same:,} of them identical)" if same else ""
    message = f"{part_of(count, total)} images of the task {task.name} are training images, or near-duplicates of one{identical}"
    remedy = f"Remove them from the training data: the results of {task.name} would be better than those on new images."
    return make_finding("leakage", severity, count, total, message, remedy, examples)


def _example(parts: Parts, key: str, place: NDArray[np.int64], difference: int) -> JSON:
    mine, url = sample_place(parts, int(place[0]), int(place[1]))
    return example(mine, url, f"{'identical to' if difference <= SAME_COLOR_DIFFERENCE else 'like'} {key} of the task")
