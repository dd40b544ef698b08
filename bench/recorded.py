"""Results of long benches: one JSON line for each finished run, so that a bench continues where it was stopped.

Several processes may run one bench: each run is locked while it is in progress.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Recorded:
    """The lines of a file, each of one run; `keys` are the fields that name a run."""

    def __init__(self, file: Path, *keys: str) -> None:
        self._file, self._keys = file, keys

    def lines(self) -> list[Line]:
        return [json.loads(line) for line in self._file.read_text().splitlines()] if self._file.exists() else []

    def keep(self, *lines: Line) -> None:
        """Append lines in one write, so that those of two processes do not mix."""
        with self._file.open("a") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))

    @contextmanager
    def missing(self, *values: Any) -> Iterator[bool]:
        """Lock a run; yield False if it is recorded, or in progress in another process."""
        name = "-".join(map(str, values))
        with self._file.with_name(f"{self._file.stem}-{name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield not any(tuple(line.get(key) for key in self._keys) == values for line in self.lines())
