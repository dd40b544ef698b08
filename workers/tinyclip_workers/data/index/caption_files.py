"""Files of captions by key: Parquet, or JSON lines, which may be compressed by gzip.

Each has a key with a caption, a list of them, or these by language.
"""

import gzip
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pyarrow.parquet as pq

from tinyclip_workers.data.errors import DataError
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
