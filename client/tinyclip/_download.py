"""A model version's directory, written aside and renamed when every file in it is the one announced."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import httpx

from tinyclip._calls import Call, nothing, path
from tinyclip.errors import CannotReachServer, DigestMismatch, InputError
from tinyclip.schemas import ModelFile, ModelVersion


class Download:
    """The files of one version on their way to `dest`. The folder aside is named by what is downloaded, so that another
    version's half is never gone on with."""

    def __init__(self, version: ModelVersion, dest: Path) -> None:
        self._version = version
        self._dest = dest.absolute()
        self._aside = self._dest.with_name(f".{self._dest.name}.{version.name}@{version.version}.partial")
        for file in version.files:
            parts = PurePosixPath(file.path)
            if parts.is_absolute() or ".." in parts.parts:
                raise DigestMismatch(f"the server lists a file outside of the model's directory: {file.path!r}")

    def missing(self) -> list[ModelFile]:
        """Files still to be fetched. Raises `InputError` if something else is at `dest`."""
        if self._is_complete(self._dest):
            return []
        if self._dest.exists() and (not self._dest.is_dir() or any(self._dest.iterdir())):
            raise InputError(
                f"{self._dest} exists and is not {self._version.name}@{self._version.version}",
                "remove it or name another directory to pull to",
            )
        return self._version.files

    def next_request(self, file: ModelFile) -> Call[None] | None:
        """The request for the bytes of a file that are not here yet; None if all are."""
        part = self._aside / file.path
        part.parent.mkdir(parents=True, exist_ok=True)
        have = part.stat().st_size if part.exists() else 0
        if have > file.bytes:
            part.unlink()
            have = 0
        if have == file.bytes and part.exists():
            return None
        headers = {"Range": f"bytes={have}-"} if have else {}
        model = self._version
        where = path("models", model.name, "versions", model.version, "files") + "/" + _quoted(file.path)
        # The bytes on the wire must be the file's: no content coding.
        return Call("GET", where, nothing, headers={**headers, "Accept-Encoding": "identity"})

    @contextlib.contextmanager
    def appending(self, file: ModelFile, response: httpx.Response) -> Iterator[IO[bytes]]:
        """The part to write an answer to: gone on with if the server sends a range, begun again if it sends the whole."""
        mode = "ab" if response.status_code == 206 else "wb"
        with open(self._aside / file.path, mode) as part:
            yield part
        if (self._aside / file.path).stat().st_size < file.bytes:
            raise CannotReachServer(str(response.request.url), "the answer ended before the file did")

    def verify(self, file: ModelFile) -> None:
        """Raises `DigestMismatch`, and forgets the part, if it is not the file announced."""
        part = self._aside / file.path
        if (found := _sha256(part)) != file.sha256:
            part.unlink()
            raise DigestMismatch(
                f"{file.path} has sha256 {found[:12]}…, announced was {file.sha256[:12]}…; it was thrown away, pull again"
            )

    def finish(self) -> Path:
        """Puts the whole directory at its place."""
        if self._aside.exists():
            if self._is_complete(self._dest):
                shutil.rmtree(self._aside)
            else:
                os.replace(self._aside, self._dest)
        return self._dest

    def _is_complete(self, folder: Path) -> bool:
        return folder.is_dir() and bool(self._version.files) and all(
            (folder / file.path).is_file() and _sha256(folder / file.path) == file.sha256 for file in self._version.files
        )


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _quoted(file_path: str) -> str:
    return "/".join(path(part).removeprefix("/v1/") for part in PurePosixPath(file_path).parts)
