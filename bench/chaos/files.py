"""The files of the artifacts store, read without the service: on a disk or on S3."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from tests.s3 import BUCKET, bucket_files


class Files(ABC):
    """The files below the root of an artifacts store."""

    root: str
    poll_seconds: float
    """Pause between two looks while waiting for a file."""

    @abstractmethod
    def names(self, pattern: str) -> list[str]:
        """Return the paths, relative to the root, that match a glob."""

    @abstractmethod
    def read(self, path: str) -> bytes: ...


class LocalFiles(Files):
    """A store on a disk."""

    poll_seconds = 0.1

    def __init__(self, folder: Path) -> None:
        self.root, self._folder = str(folder), folder

    def names(self, pattern: str) -> list[str]:
        return [os.fspath(path.relative_to(self._folder)) for path in self._folder.glob(pattern)]

    def read(self, path: str) -> bytes:
        return (self._folder / path).read_bytes()


class S3Files(Files):
    """A store on a test server, which is read directly, without the faults that a proxy injects."""

    poll_seconds = 0.5

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._base = f"{BUCKET}/artifacts"
        self.root, self._server = f"s3://{self._base}", bucket_files(dict(environment))

    def names(self, pattern: str) -> list[str]:
        return [str(name).removeprefix(f"{self._base}/") for name in self._server.glob(f"{self._base}/{pattern}")]

    def read(self, path: str) -> bytes:
        return bytes(self._server.cat_file(f"{self._base}/{path}"))
