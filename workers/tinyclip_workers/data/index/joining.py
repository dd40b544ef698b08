"""More captions from a file, such as synthetic or translated ones, joined to the samples by key, in a bounded amount of memory.

The file is read once into a temporary SQLite database. Then the samples of each shard are written again with their captions:
repeated after a kill, that has the same result.
"""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from tinyclip.artifacts.paths import dataset_samples
from tinyclip.artifacts.store import ArtifactsStore

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.index.caption_files import NO_LANGUAGE, ROWS_AT_ONCE, Captions, Texts, read_entries
from tinyclip_workers.data.index.dataset_index import write_shard_samples
from tinyclip_workers.data.index.rows import SAMPLES, Use, from_parquet
from tinyclip_workers.runtime.user_files import open_file


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
