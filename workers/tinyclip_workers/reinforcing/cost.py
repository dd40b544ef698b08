"""Estimate what a reinforcement would cost and save, from a few samples that are encoded on this machine."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.datasets import CaptionStatistics, DatasetVersion, ReinforcementCost, ReinforcementPost

from tinyclip_workers.data.augment import VIEW
from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.data.reinforcement.embeddings import BYTES
from tinyclip_workers.data.samples import Sample, captions_of, image_bytes
from tinyclip_workers.data.shards import BROKEN_SHARD
from tinyclip_workers.reinforcing.encoder import decode_view
from tinyclip_workers.reinforcing.inputs import load_encoder, open_version, precision_for
from tinyclip_workers.reinforcing.shard_files import read_training_samples
from tinyclip_workers.training.teachers.encoder import TeacherEncoder

SAMPLES = 16
"""Samples that are encoded. More would take long with a large teacher on a CPU."""
SAMPLED_CAPTIONS = 256
"""Samples whose captions are counted."""
STUDENT_SHARE = 0.5
"""Size of the student for which `teacher_share` is estimated, relative to the first teacher."""
TRAINING_PASSES = 3
"""A forward pass and its backward pass, which costs two."""
TABLE_BYTES, VIEW_BYTES, ROW_BYTES, HEADER_BYTES = 28, 4 * len(VIEW), 5, 1200
"""Of a text in its shard's table, of a view, of a sample, and of a shard's two files."""


@dataclass(frozen=True)
class _Seconds:
    """Seconds of one image and one text, of all teachers together."""

    decode_image: float
    encode_image: float
    encode_text: float
    first_share: float
    """Share of the first teacher, by its parameters."""


def estimate(store: ArtifactsStore, dataset: str, number: int, post: ReinforcementPost) -> ReinforcementCost:
    """Load the teachers, encode a few samples, and estimate. Raises TeacherError, DataError, OSError."""
    version, index = open_version(store, dataset, number)
    samples = list(islice(_training_samples(index), SAMPLED_CAPTIONS))
    captions, texts_each = _caption_counts(samples, version, post)
    if not captions:
        raise DataError(f"no sample of {dataset}@{number} has a caption that can be read", field="dataset", value=dataset)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = load_encoder(post, device, precision_for(post, device))
    seconds = _measure(encoder, samples[:SAMPLES], captions[:SAMPLES], version, post)
    views, texts = index.pairs * post.augmentations, max(1, round(index.pairs * texts_each))
    widths = [teacher.embed_dim for teacher in encoder.described]
    each = sum(width * BYTES[post.dtype] + (4 if post.dtype == "int8" else 0) for width in widths)
    total = views * (seconds.decode_image + seconds.encode_image) + texts * seconds.encode_text
    live = seconds.encode_image + seconds.encode_text
    student = TRAINING_PASSES * STUDENT_SHARE * live * seconds.first_share
    size = views * (each + VIEW_BYTES) + texts * (each + TABLE_BYTES) + index.pairs * ROW_BYTES + len(index.shards) * HEADER_BYTES
    return ReinforcementCost(
        views=views, texts=texts, bytes=size, seconds=round(total, 3), teacher_share=round(live / (live + student), 3),
        epochs_to_pay=round(total / (index.pairs * live), 2),
    )  # fmt: skip


def _training_samples(index: DatasetIndex) -> Iterator[Sample]:
    """Yield training samples of the first shards that can be read. Raises DataError."""
    for number, shard in enumerate(index.shards):
        if shard.pairs:
            try:
                yield from (sample for _, sample in read_training_samples(shard.url, index.load_samples(number)))
            except BROKEN_SHARD as error:
                raise DataError(f"{shard.url} cannot be read: {error}", field="dataset", value=shard.url) from error


def _caption_counts(samples: list[Sample], version: DatasetVersion, post: ReinforcementPost) -> tuple[list[str], float]:
    """Return the captions of samples, and the distinct texts of a sample: of the report, else as among these samples."""
    captions, skipped = [], Skipped()
    for sample in samples:
        with skipped.unusable(sample):
            found = captions_of(sample, version.source.caption_key)
            captions += found[:1] if post.captions == "first" else found
    statistics: CaptionStatistics | None = version.caption_stats
    if statistics is not None and post.captions == "all" and version.samples:
        return captions, statistics.distinct / version.samples
    return captions, len(set(captions)) / max(1, len(samples))


def _measure(
    encoder: TeacherEncoder, samples: list[Sample], captions: list[str], version: DatasetVersion, post: ReinforcementPost
) -> _Seconds:
    """Decode and encode samples twice, and time the second time. Raises DataError."""
    # On a CPU its time, which other programs on the machine do not change; a GPU has no such clock.
    clock = time.perf_counter if encoder.on_gpu else time.process_time
    decoding = image = text = 0.0
    for _ in range(2):
        found, skipped, started = [], Skipped(), clock()
        for number, sample in enumerate(samples):
            with skipped.unusable(sample):
                data = image_bytes(sample, version.source.image_key)
                found.append(decode_view(data, encoder.pixels, post, number, 0))
        decoding = clock() - started
        if not found:
            examples = "; ".join(skipped.examples)
            message = f"none of the first {len(samples)} images can be read ({examples})"
            raise DataError(message, field="dataset", value=version.name)
        started = clock()
        encoder.encode_images([crop for crop, _ in found], [view for _, view in found])
        middle = clock()
        encoder.encode_texts(captions)
        image, text = (middle - started) / len(found), (clock() - middle) / len(captions)
    return _Seconds(decoding / len(samples), image, text, encoder.first_share)
