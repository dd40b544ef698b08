"""More captions from a file, such as synthetic ones, joined to the samples by key, in a bounded amount of memory.

The file is read once into a temporary SQLite database. Then the samples of each shard are written again with their captions:
repeated after a kill, that has the same result.
"""

import hashlib
import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from tinyclip.artifacts.paths import dataset_samples
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JSON

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.index.dataset_index import write_shard_samples
from tinyclip_workers.data.index.rows import SAMPLES, Use, from_parquet
from tinyclip_workers.data.samples import MAX_TEXT_BYTES, MAX_TEXT_CHARACTERS
from tinyclip_workers.datasets.captions.counts import CaptionCounter
from tinyclip_workers.datasets.statistics import MAX_EXAMPLES, Statistics, example
from tinyclip_workers.runtime.user_files import open_file

FIELD = "source.captions"
ROWS_AT_ONCE = 1000
MAX_CAPTIONS = 100
"""Captions that are kept for a sample."""
CACHE_KIB = 128 << 10
PARQUET = b"PAR1"

Entry = tuple[str, list[str]]


@dataclass
class JoinedCaptions:
    """The result of joining a file of captions."""

    sha256: str
    """Of the file."""
    samples: int = 0
    """Usable samples with captions from the file."""
    captions: int = 0
    unknown: int = 0
    """Keys that no sample has."""
    unknown_examples: list[JSON] = field(default_factory=list)
    malformed: int = 0
    """Lines or rows that are no key with captions."""
    malformed_examples: list[JSON] = field(default_factory=list)
    statistics: Statistics = field(default_factory=Statistics)


def join_captions(
    store: ArtifactsStore, folder: str, address: str, urls: Sequence[str], context_length: int, on_step: Callable[[str], None]
) -> JoinedCaptions:
    """Join the captions of a file to the samples of a version.

    `on_step` is called with a description now and then. Raises what it raises, and DataError if the file cannot be read.
    """
    try:
        joined = JoinedCaptions(_digest(address))
        with tempfile.TemporaryDirectory(prefix="tinyclip-captions-") as scratch:
            captions = _Captions(Path(scratch) / "captions.sqlite")
            for number, entry in enumerate(_entries(address), start=1):
                if number % ROWS_AT_ONCE == 0:
                    on_step(f"{number:,} rows of captions")
                if isinstance(entry, str):
                    joined.malformed += 1
                    if len(joined.malformed_examples) < MAX_EXAMPLES:
                        joined.malformed_examples.append(example("", address, f"line or row {number:,} {entry}"))
                else:
                    captions.add(*entry)
            for shard, url in enumerate(urls):
                on_step(f"captions of {shard:,} of {len(urls):,} shards")
                _join_shard(store, folder, shard, CaptionCounter(url, joined.statistics, context_length, 0), captions, joined)
            joined.unknown, keys = captions.unused()
            joined.unknown_examples = [example(key, address, "no sample has this key") for key in keys]
            captions.close()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{address} cannot be read: {error}", field=FIELD, value=address) from error
    return joined


def _join_shard(
    store: ArtifactsStore, folder: str, shard: int, counter: CaptionCounter, captions: "_Captions", joined: JoinedCaptions
) -> None:
    before = from_parquet(store.read_bytes(dataset_samples(folder, shard)))
    found: list[list[str] | None] = []
    columns = (before.column(name).to_pylist() for name in ("key", "use", "synthetic", "more_captions"))
    for key, use, synthetic, more in zip(*columns, strict=True):
        texts, own = captions.take(key), (more or [])[:synthetic]  # without those of an earlier, interrupted join
        if texts and use in (Use.TRAINING, Use.HELD_OUT):
            joined.samples += 1
            joined.captions += len(texts)
            counter.add(key.decode("utf-8", "surrogateescape"), texts)
            found.append([*own, *texts])
        else:
            found.append(own or None)
    name = "more_captions"
    column = pa.array(found, SAMPLES.field(name).type)
    after = before.set_column(before.schema.get_field_index(name), SAMPLES.field(name), column)
    if after != before:
        write_shard_samples(store, folder, shard, after)


def _digest(address: str) -> str:
    sha256 = hashlib.sha256()
    with open_file(address) as file:
        while data := file.read(1 << 20):
            sha256.update(data)
    return sha256.hexdigest()


def _entries(address: str) -> Iterator[Entry | str]:
    """Yield keys with captions, and for each malformed line or row what is wrong with it. Raises OSError, ArrowException."""
    with open_file(address) as file:
        is_parquet = file.read(len(PARQUET)) == PARQUET
        file.seek(0)
        yield from _rows(file, address) if is_parquet else _lines(file)


def _rows(file: IO[bytes], address: str) -> Iterator[Entry | str]:
    parquet = pq.ParquetFile(file)
    if missing := {"key", "captions"} - set(parquet.schema_arrow.names):
        message = f"{address} has no column {' and '.join(sorted(missing))}; it needs key, a text, and captions, a list of texts"
        raise DataError(message, field=FIELD, value=address)
    for batch in parquet.iter_batches(ROWS_AT_ONCE, columns=["key", "captions"]):
        yield from (_entry(row) for row in batch.to_pylist())


def _lines(file: IO[bytes]) -> Iterator[Entry | str]:
    while line := file.readline(MAX_TEXT_BYTES + 1):
        if len(line) > MAX_TEXT_BYTES:
            yield f"has more than {MAX_TEXT_BYTES:,} bytes"
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_TEXT_BYTES)
        elif line.strip():
            try:
                yield _entry(json.loads(line))
            except (ValueError, RecursionError):
                yield "is not JSON"


def _entry(row: Any) -> Entry | str:
    """Return key and captions of a document, or what is wrong with it."""
    key, captions = (row.get("key"), row.get("captions")) if isinstance(row, dict) else (None, None)
    key = key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else key
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(key, str) or not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        return "is not an object with a text `key` and a list of texts `captions`"
    try:
        texts = [text for each in captions if (text := each[:MAX_TEXT_CHARACTERS].strip().encode().decode())]
    except UnicodeEncodeError:
        return "has a caption with a lone surrogate"
    return (key, texts[:MAX_CAPTIONS]) if texts else "has no caption"


class _Captions:
    """The captions of the file by key, on disk."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("CREATE TABLE captions (key BLOB PRIMARY KEY, texts TEXT, used INTEGER) WITHOUT ROWID")

    def add(self, key: str, texts: list[str]) -> None:
        """Add captions of a key; those of a repeated one are all kept."""
        stored = key.encode("utf-8", "surrogateescape")
        before = self._read(stored)
        if before is not None:
            texts = list(dict.fromkeys([*before, *texts]))[:MAX_CAPTIONS]
        self._database.execute("INSERT OR REPLACE INTO captions VALUES (?, ?, 0)", (stored, json.dumps(texts)))

    def take(self, key: bytes) -> list[str] | None:
        """Return the captions of a sample's key, and mark them as used."""
        texts = self._read(key)
        if texts is not None:
            self._database.execute("UPDATE captions SET used = 1 WHERE key = ? AND used = 0", (key,))
        return texts

    def unused(self) -> tuple[int, list[str]]:
        """Return the number of keys that no sample has, and the first ones."""
        [(count,)] = self._database.execute("SELECT COUNT(*) FROM captions WHERE used = 0").fetchall()
        keys = self._database.execute("SELECT key FROM captions WHERE used = 0 ORDER BY key LIMIT ?", (MAX_EXAMPLES,)).fetchall()
        return count, [key.decode("utf-8", "surrogateescape") for (key,) in keys]

    def close(self) -> None:
        self._database.close()

    def _read(self, key: bytes) -> list[str] | None:
        row = self._database.execute("SELECT texts FROM captions WHERE key = ?", (key,)).fetchone()
        texts: list[str] | None = json.loads(row[0]) if row is not None else None
        return texts
