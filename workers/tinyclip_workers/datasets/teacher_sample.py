"""The pairs that a teacher encodes for the report: runs of successive pairs, spread evenly over the shards.

Successive pairs distinguish captions that were shifted from captions that are wrong. Shapes: N pairs of a part, E embedding size.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tinyclip.artifacts.paths import dataset_samples, dataset_version
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.spec import TeacherSpec

from tinyclip_workers.data.decoding import decode_square
from tinyclip_workers.data.index.reading import read_rows
from tinyclip_workers.data.index.rows import ShardRow, ShardSamples, Use, from_parquet
from tinyclip_workers.data.samples import Sample, UnusableSample, captions_by_language, captions_of, image_bytes, sample_errors
from tinyclip_workers.datasets.captions.checks import normalized, text_hash
from tinyclip_workers.datasets.requests import expect_wanted
from tinyclip_workers.runtime.filesystems import open_own_store
from tinyclip_workers.runtime.ray_job import RequestWithdrawn
from tinyclip_workers.runtime.ray_tasks import run_tasks
from tinyclip_workers.types import Matrix, Pixels

FORMAT = 1
PAIRS = 4096
RUN = 32
SWAPPED_EVERY = 4
"""Of so many runs, the images of one are also encoded with red and blue exchanged."""


@dataclass(frozen=True)
class TeacherScan:
    """The attempt that a Ray task belongs to, and what it encodes with."""

    artifacts: str
    name: str
    version: int
    attempt: int
    teacher: TeacherSpec
    digest: str
    """Of the teacher's weights."""
    memory: float
    image_key: tuple[str, ...]
    caption_key: str
    language: str = ""
    """That of captions without a language."""

    @property
    def folder(self) -> str:
        return dataset_version(self.name, self.version)


@dataclass(frozen=True)
class Run:
    """Successive usable samples of one shard."""

    rows: tuple[int, ...]
    swapped: bool


@dataclass
class EncodedPairs:
    """Pairs with their embeddings."""

    image_NE: Matrix
    text_NE: Matrix
    run_N: NDArray[np.int64]
    """The number of each pair's run."""
    place_N: NDArray[np.int64]
    """The place of each pair in its run, counted in usable samples."""
    caption_N: NDArray[np.uint64]
    """Hashes of the captions."""
    row_N: NDArray[np.int64]
    swapped_N: NDArray[np.bool_]
    """True for images that were also encoded with red and blue exchanged."""
    exchanged_NE: Matrix
    """These embeddings; zeros for the other images."""
    shard_N: NDArray[np.int64]


def choose_runs(usable: Sequence[int], pairs: int = PAIRS) -> dict[int, int]:
    """Return how many pairs to encode of each chosen shard, given the usable samples of all."""
    filled = [shard for shard, count in enumerate(usable) if count]
    most = max(1, pairs // RUN)
    if len(filled) > most:
        filled = [filled[round(i * (len(filled) - 1) / max(1, most - 1))] for i in range(most)]
    wanted = -(-pairs // max(1, len(filled)))
    return {shard: min(usable[shard], wanted) for shard in filled}


def runs_of(usable_rows: NDArray[np.int64], pairs: int) -> list[Run]:
    """Spread runs of successive usable samples evenly over a shard."""
    count = max(1, round(pairs / RUN))
    length = min(RUN, len(usable_rows))
    last = len(usable_rows) - length
    starts = sorted({round(i * last / max(1, count - 1)) for i in range(count)})
    if len(starts) > 1 and length * len(starts) > len(usable_rows):  # they would overlap: all of the shard
        starts = list(range(0, len(usable_rows), RUN))
    rows = [tuple(usable_rows[start : start + length].tolist()) for start in starts]
    return [Run(run, number % SWAPPED_EVERY == 0) for number, run in enumerate(rows)]


def encode_sample(
    scan: TeacherScan, shards: Sequence[ShardRow], chosen: dict[int, int], on_step: Callable[[str], None]
) -> None:
    """Encode the chosen pairs on all nodes, but for those that are encoded already.

    `on_step` is called with a description while tasks run. Raises what it raises, OSError, TaskLost and TeacherError.
    """
    store = open_own_store(scan.artifacts)
    missing = [shard for shard in chosen if _settings_of(store, scan, shard) != _settings(scan, shards[shard], chosen[shard])]
    calls = [(scan, shard, shards[shard], chosen[shard]) for shard in missing]
    seen: dict[int, float] = {}
    for step in run_tasks(encode_shard, calls, memory=scan.memory, gpu=True):
        if step is not None:
            seen[step.call] = max(step.done, seen.get(step.call, 0.0))
        on_step(f"about {RUN * sum(seen.values()):,.0f} of {sum(chosen.values()):,} pairs with the teacher")


def encode_shard(scan: TeacherScan, number: int, shard: ShardRow, pairs: int) -> Iterator[float]:
    """Encode pairs of a shard, and write them unless the request was withdrawn. Raises TeacherError, DataError, OSError."""
    from tinyclip_workers.datasets.teacher import teacher_of  # takes seconds, and the job imports this module without one

    store, teacher = open_own_store(scan.artifacts), teacher_of(scan.teacher)
    samples = ShardSamples(from_parquet(store.read_bytes(dataset_samples(scan.folder, number))))
    usable = np.flatnonzero(np.isin(samples.table.column("use").to_numpy(), (Use.TRAINING, Use.HELD_OUT)))
    found: dict[str, list[Any]] = {}
    for run_number, run in enumerate(runs_of(usable, pairs)):
        yield float(run_number)
        squares, captions, places = _read_run(scan, shard, samples, run, teacher.image_size)
        if not squares:
            continue
        image_NE = teacher.images(squares)
        exchanged_NE = teacher.images([square[..., ::-1] for square in squares]) if run.swapped else np.zeros_like(image_NE)
        hashes = [text_hash(normalized(caption)) for caption in captions]
        for name, value in {
            "image_NE": image_NE, "text_NE": teacher.texts(captions), "exchanged_NE": exchanged_NE,
            "run_N": np.full(len(places), run_number), "place_N": np.array(places), "caption_N": np.array(hashes, np.uint64),
            "row_N": np.array([run.rows[place] for place in places]), "swapped_N": np.full(len(places), run.swapped),
        }.items():  # fmt: skip
            found.setdefault(name, []).append(value.astype(np.float16) if value.dtype == np.float32 else value)
    file = io.BytesIO()
    arrays: dict[str, Any] = {name: np.concatenate(values) for name, values in found.items()}
    np.savez(file, settings=np.frombuffer(_settings(scan, shard, pairs), np.uint8), **arrays)
    try:
        expect_wanted(store, scan.name, scan.version, scan.attempt)
    except RequestWithdrawn:
        return
    store.write_bytes(_path(scan, number), file.getvalue())


def read_encoded(store: ArtifactsStore, scan: TeacherScan, chosen: dict[int, int]) -> EncodedPairs | None:
    """Return all encoded pairs; None if there are none. Raises OSError."""
    parts = []
    for shard in sorted(chosen):
        part = np.load(io.BytesIO(store.read_bytes(_path(scan, shard))), allow_pickle=False)
        if "row_N" in part:
            columns: dict[str, Any] = {name: part[name] for name in part if name != "settings"}
            parts.append({**columns, "shard_N": np.full(len(part["row_N"]), shard)})
    if not parts:
        return None
    for number, part in enumerate(parts):
        part["run_N"] = part["run_N"] + number * PAIRS
    merged: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return EncodedPairs(**{n: column.astype(np.float32) if n.endswith("E") else column for n, column in merged.items()})


def _read_run(
    scan: TeacherScan, shard: ShardRow, samples: ShardSamples, run: Run, size: int
) -> tuple[list[Pixels], list[str], list[int]]:
    """Return images, one caption of each, and their places in the run; unreadable ones are left out."""
    squares, captions, places = [], [], []
    rows = read_rows(shard, samples, run.rows[0], run.rows[-1] + 1)
    for place, row in enumerate(run.rows):
        try:
            with sample_errors():
                caption = _caption(scan, rows[row], samples, row)
                squares.append(decode_square(image_bytes(rows[row], scan.image_key), size))
                captions.append(caption)
                places.append(place)
        except UnusableSample:
            continue
    return squares, captions, places


def _caption(scan: TeacherScan, sample: Sample, samples: ShardSamples, row: int) -> str:
    """Return one of the captions, in the teacher's language if it has one, which a hash of the key chooses."""
    captions, more = captions_of(sample, scan.caption_key), samples.more_captions(row)
    if (language := scan.teacher.language) is not None:
        captions = captions_by_language(sample, scan.caption_key, scan.language).get(language, [])
        more = [text for text, own in zip(more, samples.more_languages(row), strict=True) if (own or scan.language) == language]
    captions += more
    if not captions:
        raise UnusableSample(f"it has no caption in {language}")
    return captions[text_hash(sample["__key__"].encode("utf-8", "surrogatepass").hex()) % len(captions)]


def _settings(scan: TeacherScan, shard: ShardRow, pairs: int) -> bytes:
    """Return a digest of everything that the pairs of a shard depend on."""
    document = [FORMAT, scan.digest, shard.url, shard.sha256, pairs, scan.image_key, scan.caption_key, scan.teacher.language]
    return hashlib.sha256(json.dumps(document).encode()).hexdigest().encode()


def _settings_of(store: ArtifactsStore, scan: TeacherScan, number: int) -> bytes | None:
    """Return the digest that a part was made with; None if there is no part."""
    data = store.read_if_exists(_path(scan, number))
    if data is None:
        return None
    settings: bytes = np.load(io.BytesIO(data), allow_pickle=False)["settings"].tobytes()
    return settings


def _path(scan: TeacherScan, number: int) -> str:
    return f"{scan.folder}/findings/teacher/{number:06d}.npz"
