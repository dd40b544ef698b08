"""Near-duplicate images: groups of images with near hashes and thumbnails, of a bounded number of images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tinyclip.artifacts.paths import dataset_samples
from tinyclip.schemas import JSON
from tinyclip.schemas.datasets import Finding

from tinyclip_workers.data.index.rows import ShardSamples, from_parquet
from tinyclip_workers.datasets.images.checks import MAX_COLOR_DIFFERENCE, SAME_COLOR_DIFFERENCE, THUMBNAIL_BYTES
from tinyclip_workers.datasets.report.near import near_pairs
from tinyclip_workers.datasets.report.rules import make_finding, part_of, severity_of
from tinyclip_workers.datasets.scan.merging import Parts
from tinyclip_workers.datasets.statistics import MAX_EXAMPLES, example

MAX_IMAGES = 2_000_000
"""Images that are compared at most: 16 bytes each, and 192 for those with a near hash."""
COMPARED_IN_GROUP = 4
"""Different images with the same hash that others are compared with."""
COMPARED_AT_ONCE = 65_536
WARNING = 0.2


@dataclass
class _Images:
    """The images that are compared (N), in the order of the shards."""

    hash_N: NDArray[np.uint64]
    shard_N: NDArray[np.int64]
    row_N: NDArray[np.int64]


def duplicate_findings(parts: Parts) -> list[Finding]:
    """Return the finding on near-duplicate images, unless there are hardly any. Raises OSError."""
    total, divisor, images = _load(parts)
    links = _Links(len(images.hash_N))
    candidates_A, pairs = _candidates(images.hash_N)
    thumbnails = _thumbnails(parts, images, candidates_A)
    place = np.searchsorted(candidates_A, pairs)
    difference = color_difference(thumbnails, place[:, 0], thumbnails, place[:, 1])
    near = np.flatnonzero(difference <= MAX_COLOR_DIFFERENCE)
    for pair in near[np.lexsort((pairs[near, 0], pairs[near, 1]))]:
        first, second = pairs[pair].tolist()
        links.join(first, second, same=bool(difference[pair] <= SAME_COLOR_DIFFERENCE))
    count = links.redundant * divisor
    if not total or count / total < 0.001:
        return []
    about = "about " if divisor > 1 else ""
    identical = f", {about}{links.same * divisor:,} of them identical" if links.same else ""
    message = f"{about}{part_of(count, total)} images are near-duplicates of an earlier one{identical}"
    remedy = "Remove the repeated images: training sees them more often than others, and as each other's negatives."
    severity = severity_of(count / total, WARNING, 2.0)
    examples = _examples(parts, images, links)
    return [
        make_finding("near_duplicate_images", severity, count, total, message, remedy, examples, estimated=divisor > 1)
    ]  # fmt: skip


def _load(parts: Parts) -> tuple[int, int, _Images]:
    """Return the number of images, the divisor by which some of them are chosen, and these."""
    total = sum(int(marks.has_image_N.sum()) for marks, _ in parts)
    divisor = -(-total // MAX_IMAGES) or 1
    hashes, shards, rows = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for shard, (marks, _) in enumerate(parts):
        hash_N = marks.hash_N
        chosen = np.flatnonzero(marks.has_image_N & (_mixed(hash_N) % np.uint64(divisor) == 0))
        hashes.append(hash_N[chosen])
        shards.append(np.full(len(chosen), shard))
        rows.append(chosen)
    return total, divisor, _Images(np.concatenate(hashes), np.concatenate(shards), np.concatenate(rows))


def _mixed(hash_N: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return numbers that are equal for equal hashes and spread evenly: the bits of hashes are not."""
    mixed_N = hash_N * np.uint64(0x9E3779B97F4A7C15)
    return mixed_N >> np.uint64(32)


def _candidates(hash_N: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the images to compare, and the pairs (P, 2) of them."""
    order = np.argsort(hash_N, kind="stable")
    hash_U, start_U, count_U = np.unique(hash_N[order], return_index=True, return_counts=True)
    pairs = [np.zeros((0, 2), np.int64)]
    for start, count in zip(start_U[count_U > 1].tolist(), count_U[count_U > 1].tolist(), strict=True):
        group = np.sort(order[start : start + count])
        pairs += [np.stack(np.broadcast_arrays(group[k], group[k + 1 :]), axis=1) for k in range(min(count, COMPARED_IN_GROUP))]
    first, second = near_pairs(hash_U)
    pairs.append(np.sort(np.stack([order[start_U[first]], order[start_U[second]]], axis=1), axis=1))
    found = np.concatenate(pairs)
    return np.unique(found), found


def _thumbnails(parts: Parts, images: _Images, candidates_A: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the thumbnails of some images."""
    found = [np.zeros((0, THUMBNAIL_BYTES), np.uint8)]
    for shard, (marks, _) in enumerate(parts):
        rows = images.row_N[candidates_A[images.shard_N[candidates_A] == shard]]
        if len(rows):
            found.append(marks.thumbnails(rows))
    return np.concatenate(found)


def color_difference(
    thumbnails_A: NDArray[np.uint8], a: NDArray[np.int64], thumbnails_B: NDArray[np.uint8], b: NDArray[np.int64]
) -> NDArray[np.int16]:
    """Return the largest difference of two thumbnails' colours, for each pair of rows."""
    differences = [np.zeros(0, np.int16)]
    for start in range(0, len(a), COMPARED_AT_ONCE):
        part = slice(start, start + COMPARED_AT_ONCE)
        differences.append(np.abs(thumbnails_A[a[part]].astype(np.int16) - thumbnails_B[b[part]]).max(axis=1))
    return np.concatenate(differences)


class _Links:
    """Groups of near-duplicates: each image leads to the first of its group."""

    def __init__(self, count: int) -> None:
        self._first = np.arange(count)
        self.redundant = self.same = 0
        """Images with an earlier near-duplicate, and those of them that are identical to it."""
        self.pairs: list[tuple[int, int, bool]] = []

    def join(self, first: int, second: int, *, same: bool) -> None:
        a, b = self._root(first), self._root(second)
        if a == b:
            return
        self._first[max(a, b)] = min(a, b)
        self.redundant += 1
        self.same += same
        if len(self.pairs) < MAX_EXAMPLES:
            self.pairs.append((first, second, same))

    def _root(self, image: int) -> int:
        while (first := int(self._first[image])) != image:
            self._first[image] = image = int(self._first[first])
        return image


def _examples(parts: Parts, images: _Images, links: _Links) -> list[JSON]:
    found = []
    for first, second, same in links.pairs:
        (key, url), (other, other_url) = (_place(parts, images, image) for image in (second, first))
        found.append(example(key, url, f"{'identical to' if same else 'like'} {other} in {other_url}"))
    return found


def _place(parts: Parts, images: _Images, image: int) -> tuple[str, str]:
    return sample_place(parts, int(images.shard_N[image]), int(images.row_N[image]))


def sample_place(parts: Parts, shard: int, row: int) -> tuple[str, str]:
    """Return key and shard of a sample, for an example. Raises OSError."""
    samples = ShardSamples(from_parquet(parts.store.read_bytes(dataset_samples(parts.folder, shard))))
    return samples.key(row), parts.urls[shard]
