"""More captions from a file, such as synthetic or translated ones, joined to the samples by key, in a bounded amount of memory.

The file is read once into a temporary SQLite database. Then the samples of each shard are written again with their captions:
repeated after a kill, that has the same result.
"""

import gzip
import hashlib
import json
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from tinyclip.artifacts.paths import dataset_samples
from tinyclip.artifacts.store import ArtifactsStore

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.index.dataset_index import write_shard_samples
from tinyclip_workers.data.index.rows import SAMPLES, Use, from_parquet
from tinyclip_workers.data.samples import MAX_TEXT_BYTES, MAX_TEXT_CHARACTERS
from tinyclip_workers.runtime.user_files import open_file

ROWS_AT_ONCE = 1000
MAX_CAPTIONS = 100
"""Captions of each language that are kept for a sample."""
MAX_LANGUAGES = 200
"""Languages of a line or row that are read."""
CACHE_KIB = 128 << 10
PARQUET, GZIP = b"PAR1", b"\x1f\x8b"

NO_LANGUAGE = ""
"""The language of captions that are given without one."""
Texts = dict[str, list[str]]
"""Captions by language."""
Entry = tuple[str, Texts]


@dataclass
class JoinedCaptions:
    """The result of joining a file of captions."""

    sha256: str = ""
    """Of the file."""
    samples: int = 0
    """Usable samples with captions from the file."""
    captions: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    """Captions by language, of languages that the data set has."""
    other_languages: Counter[str] = field(default_factory=Counter)
    """Captions of languages that it does not have, which are not used."""
    unknown: int = 0
    """Keys that no sample has."""
    unknown_keys: list[str] = field(default_factory=list)
    """The first ones."""
    malformed: int = 0
    """Lines or rows that are no key with captions."""


class JoinedFile:
    """A file of captions while it is joined to the samples of a version."""

    def __init__(
        self, store: ArtifactsStore, folder: str, address: str, languages: Sequence[str], joined: JoinedCaptions, *, field: str
    ) -> None:
        """`languages`: of the data set; `joined` receives the counts. `field`: of the address, for errors."""
        self._store, self._folder, self._address, self._field = store, folder, address, field
        self._bits = {language: bit for bit, language in enumerate(languages)}
        self.joined = joined

    def join(
        self, shards: Iterable[int], on_texts: Callable[[int, str, list[str]], None], on_malformed: Callable[[str], None],
        on_step: Callable[[str], None],
    ) -> None:  # fmt: skip
        """Join the captions to the samples of these shards.

        `on_texts` is called with shard, key and captions of each usable sample that has some, `on_malformed` with what is wrong
        with a line or row, `on_step` with a description now and then. Raises what they raise, and DataError if the file cannot be
        read.
        """
        try:
            self.joined.sha256 = _digest(self._address)
            with tempfile.TemporaryDirectory(prefix="tinyclip-captions-") as scratch:
                captions = Captions(Path(scratch) / "captions.sqlite")
                for number, entry in enumerate(read_entries(self._address, self._field), start=1):
                    if number % ROWS_AT_ONCE == 0:
                        on_step(f"{number:,} rows of captions")
                    if isinstance(entry, str):
                        self.joined.malformed += 1
                        on_malformed(f"line or row {number:,} {entry}")
                    else:
                        captions.add(*entry)
                for shard in shards:
                    on_step(f"captions of shard {shard:,}")
                    self._join_shard(shard, captions, on_texts)
                self.joined.unknown, self.joined.unknown_keys = captions.unused()
                captions.close()
        except (OSError, EOFError, ValueError, pa.ArrowException) as error:
            raise DataError(f"{self._address} cannot be read: {error}", field=self._field, value=self._address) from error

    def _join_shard(self, shard: int, captions: "Captions", on_texts: Callable[[int, str, list[str]], None]) -> None:
        before = from_parquet(self._store.read_bytes(dataset_samples(self._folder, shard)))
        texts_N: list[list[str] | None] = []
        languages_N: list[list[str | None] | None] = []
        joined_N: list[int] = []
        columns = (before.column(name).to_pylist() for name in ("key", "use", "synthetic", "more_captions"))
        for key, use, synthetic, more in zip(*columns, strict=True):
            found, own = captions.take(key), (more or [])[:synthetic]  # without those of an earlier, interrupted join
            if found is None or use not in (Use.TRAINING, Use.HELD_OUT):
                found = {}
            texts, languages = self._chosen(found)
            if texts:
                self.joined.samples += 1
                self.joined.captions += len(texts)
                on_texts(shard, key.decode("utf-8", "surrogateescape"), texts)
            texts_N.append([*own, *texts] or None)
            languages_N.append([*[None] * len(own), *languages] if any(languages) else None)
            joined_N.append(self._mask(languages))
        after = _with_column(before, "more_captions", texts_N)
        after = _with_column(_with_column(after, "more_languages", languages_N), "joined", joined_N)
        if after != before:
            write_shard_samples(self._store, self._folder, shard, after)

    def _chosen(self, found: Texts) -> tuple[list[str], list[str | None]]:
        """Return the captions of a sample that are used, and the language of each; None where the data set has none."""
        texts: list[str] = []
        languages: list[str | None] = []
        for language, each in found.items():
            if language != NO_LANGUAGE and self._bits and language not in self._bits:
                self.joined.other_languages[language] += len(each)
                continue
            known = language if language in self._bits else None
            self.joined.languages[known or next(iter(self._bits), NO_LANGUAGE)] += len(each)
            texts += each
            languages += [known] * len(each)
        return texts, languages

    def _mask(self, languages: Sequence[str | None]) -> int:
        """Return the languages of captions as bits; those without one are in the first."""
        if not self._bits:
            return 0
        return sum(1 << bit for bit in {0 if language is None else self._bits[language] for language in languages})


def _with_column(table: pa.Table, name: str, values: Sequence[object]) -> pa.Table:
    column = pa.array(values, SAMPLES.field(name).type)
    return table.set_column(table.schema.get_field_index(name), SAMPLES.field(name), column)


def _digest(address: str) -> str:
    sha256 = hashlib.sha256()
    with open_file(address) as file:
        while data := file.read(1 << 20):
            sha256.update(data)
    return sha256.hexdigest()


def read_entries(address: str, field: str) -> Iterator[Entry | str]:
    """Yield keys with captions, and for each malformed line or row what is wrong with it.

    Raises OSError, EOFError, ArrowException, and DataError for a Parquet file of other columns.
    """
    with open_file(address) as file:
        start = file.read(len(PARQUET))
        file.seek(0)
        if start == PARQUET:
            yield from _rows(file, address, field)
        else:
            with _unpacked(file, start) as text:
                yield from _lines(text)


@contextmanager
def _unpacked(file: IO[bytes], start: bytes) -> Iterator[IO[bytes]]:
    if not start.startswith(GZIP):
        yield file
        return
    with gzip.GzipFile(fileobj=file) as unpacked:
        yield cast(IO[bytes], unpacked)


def _rows(file: IO[bytes], address: str, field: str) -> Iterator[Entry | str]:
    parquet = pq.ParquetFile(file)
    if missing := {"key", "captions"} - set(parquet.schema_arrow.names):
        message = f"{address} has no column {' and '.join(sorted(missing))}; it needs key, a text, and captions, a list of texts"
        raise DataError(message, field=field, value=address)
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
    texts = _by_language(captions)
    if not isinstance(key, str) or texts is None:
        return "is not an object with a text `key`, and `captions` that are a list of texts, or such lists by language"
    try:
        cleaned = {language: list(_cleaned(each)) for language, each in texts.items()}
    except UnicodeEncodeError:
        return "has a caption with a lone surrogate"
    kept = {language: each for language, each in cleaned.items() if each}
    return (key, kept) if kept else "has no caption"


def _by_language(captions: Any) -> Texts | None:
    """Return captions as they are written, by language; None if they are something else."""
    if isinstance(captions, list) and captions and all(isinstance(each, tuple) and len(each) == 2 for each in captions):
        captions = dict(captions)  # a map of Parquet
    mapping = captions if isinstance(captions, dict) else {NO_LANGUAGE: captions}
    lists = {language: [each] if isinstance(each, str) else each for language, each in mapping.items() if each is not None}
    is_valid = len(lists) <= MAX_LANGUAGES and all(
        isinstance(language, str) and isinstance(each, list) and all(isinstance(text, str) for text in each)
        for language, each in lists.items()
    )
    return lists if is_valid else None


def _cleaned(texts: Sequence[str]) -> Iterator[str]:
    """Yield the captions that are kept. Raises UnicodeEncodeError."""
    stripped = (each[:MAX_TEXT_CHARACTERS].strip().encode().decode() for each in texts)
    yield from [text for text in stripped if text][:MAX_CAPTIONS]


class Captions:
    """The captions of a file by key, on disk."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("CREATE TABLE captions (key BLOB PRIMARY KEY, texts TEXT, used INTEGER) WITHOUT ROWID")

    def add(self, key: str, texts: Texts) -> None:
        """Add captions of a key; those of a repeated one are all kept."""
        stored = key.encode("utf-8", "surrogateescape")
        before = self._read(stored) or {}
        merged = {
            language: list(dict.fromkeys([*before.get(language, []), *texts.get(language, [])]))[:MAX_CAPTIONS]
            for language in {**before, **texts}
        } if before else texts  # fmt: skip
        self._database.execute("INSERT OR REPLACE INTO captions VALUES (?, ?, 0)", (stored, json.dumps(merged)))

    def take(self, key: bytes) -> Texts | None:
        """Return the captions of a sample's key, and mark them as used."""
        texts = self._read(key)
        if texts is not None:
            self._database.execute("UPDATE captions SET used = 1 WHERE key = ? AND used = 0", (key,))
        return texts

    def unused(self, shown: int = 5) -> tuple[int, list[str]]:
        """Return the number of keys that no sample has, and the first ones."""
        [(count,)] = self._database.execute("SELECT COUNT(*) FROM captions WHERE used = 0").fetchall()
        keys = self._database.execute("SELECT key FROM captions WHERE used = 0 ORDER BY key LIMIT ?", (shown,)).fetchall()
        return count, [key.decode("utf-8", "surrogateescape") for (key,) in keys]

    def close(self) -> None:
        self._database.close()

    def _read(self, key: bytes) -> Texts | None:
        row = self._database.execute("SELECT texts FROM captions WHERE key = ?", (key,)).fetchone()
        texts: Texts | None = json.loads(row[0]) if row is not None else None
        return texts
