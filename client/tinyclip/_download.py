"""A model version's directory, written aside and renamed when every file in it is the one announced."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import httpx

from tinyclip._calls import Call, nothing, path
from tinyclip.errors import CannotReachServer, DigestMismatch, InputError
from tinyclip.schemas import ModelFile, ModelVersion
from tinyclip.schemas.exports import EXPORTS


@dataclass(frozen=True)
class Part:
    """Files of a version that make a directory of their own."""

    called: str
    """Empty for the version itself."""
    folder: str
    """Where the version has them; empty, or it ends with a slash."""
    files: list[ModelFile]
    """With paths below the folder."""


def own_files(version: ModelVersion) -> Part:
    """The version itself, without its exports."""
    return Part("", "", [file for file in version.files if not file.path.startswith(f"{EXPORTS}/")])


def exported(version: ModelVersion, name: str) -> Part:
    """One export, as `onnx`. Raises `InputError` naming those that there are."""
    folder = f"{EXPORTS}/{name}/"
    found = [file for file in version.files if file.path.startswith(folder)]
    if not found:
        there = sorted({file.path.split("/")[1] for file in version.files if file.path.startswith(f"{EXPORTS}/")})
        has = f"it has {', '.join(there)}" if there else "it has none"
        raise InputError(f"{version.name}@{version.version} has no export {name}", f"{has}; make one with models export")
    return Part(name, folder, [file.model_copy(update={"path": file.path.removeprefix(folder)}) for file in found])


class Download:
    """The files of one version, or of an export of it, on their way to `dest`. The folder aside is named by what is downloaded,
    so that another one's half is never gone on with."""

    def __init__(self, version: ModelVersion, dest: Path, part: Part) -> None:
        self._version, self._part = version, part
        self._dest = dest.absolute()
        self._what = f"{version.name}@{version.version}" + (f" as {part.called}" if part.called else "")
        self._aside = self._dest.with_name(f".{self._dest.name}.{self._what.replace(' ', '-')}.partial")
        for file in part.files:
            parts = PurePosixPath(file.path)
            if parts.is_absolute() or ".." in parts.parts:
                raise DigestMismatch(f"the server lists a file outside of the model's directory: {file.path!r}")

    def missing(self) -> list[ModelFile]:
        """Files still to be fetched. Raises `InputError` if something else is at `dest`."""
        if self._is_complete(self._dest):
            return []
        if self._dest.exists() and (not self._dest.is_dir() or any(self._dest.iterdir())):
            raise InputError(
                f"{self._dest} exists and is not {self._what}",
                "remove it or name another directory to pull to",
            )
        return self._part.files

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
        where = path("models", model.name, "versions", model.version, "files") + "/" + _quoted(self._part.folder + file.path)
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
        return folder.is_dir() and bool(self._part.files) and all(
            (folder / file.path).is_file() and _sha256(folder / file.path) == file.sha256 for file in self._part.files
        )


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _quoted(file_path: str) -> str:
    return "/".join(path(part).removeprefix("/v1/") for part in PurePosixPath(file_path).parts)
