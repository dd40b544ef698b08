"""Downloads of a model version's directory: written aside, renamed when every file in it is the one announced."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import httpx

from tinyclip._http.calls import Call, no_content, path
from tinyclip.errors import CannotReachServer, DigestMismatch, InputError
from tinyclip.schemas import ModelFile, ModelVersion
from tinyclip.schemas.exports import EXPORTS


@dataclass(frozen=True)
class FileSet:
    """Files of a version that are downloaded together: its own, or those of one export."""

    name: str
    """Empty for the version itself."""
    folder: str
    """Their folder in the version; empty, or with a slash at its end."""
    files: list[ModelFile]
    """With paths relative to the folder."""


def own_files(version: ModelVersion) -> FileSet:
    """Return the files of the version itself, without its exports."""
    return FileSet("", "", [file for file in version.files if not file.path.startswith(f"{EXPORTS}/")])


def files_of_export(version: ModelVersion, name: str) -> FileSet:
    """Return the files of one export, as `onnx`. Raises `InputError` naming those that exist."""
    folder = f"{EXPORTS}/{name}/"
    found = [file for file in version.files if file.path.startswith(folder)]
    if not found:
        existing = sorted({file.path.split("/")[1] for file in version.files if file.path.startswith(f"{EXPORTS}/")})
        has = f"it has {', '.join(existing)}" if existing else "it has none"
        raise InputError(f"{version.name}@{version.version} has no export {name}", f"{has}; make one with models export")
    return FileSet(name, folder, [file.model_copy(update={"path": file.path.removeprefix(folder)}) for file in found])


class Download:
    """One download to `dest`. Its partial folder is named after its subject, so that it never continues another's."""

    def __init__(self, version: ModelVersion, dest: Path, wanted: FileSet) -> None:
        self._version, self._wanted = version, wanted
        self._dest = dest.absolute()
        self._subject = f"{version.name}@{version.version}" + (f" as {wanted.name}" if wanted.name else "")
        self._aside = self._dest.with_name(f".{self._dest.name}.{self._subject.replace(' ', '-')}.partial")
        for file in wanted.files:
            parts = PurePosixPath(file.path)
            if parts.is_absolute() or ".." in parts.parts:
                raise DigestMismatch(f"the server lists a file outside of the model's directory: {file.path!r}")

    def missing(self) -> list[ModelFile]:
        """Return the files to fetch. Raises `InputError` if something else is at `dest`."""
        if self._is_complete(self._dest):
            return []
        if self._dest.exists() and (not self._dest.is_dir() or any(self._dest.iterdir())):
            raise InputError(
                f"{self._dest} exists and is not {self._subject}",
                "remove it or name another directory to pull to",
            )
        return self._wanted.files

    def next_request(self, file: ModelFile) -> Call[None] | None:
        """Return the request for the missing bytes of a file, or None if none are missing."""
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
        where = path("models", model.name, "versions", model.version, "files") + "/" + _quoted(self._wanted.folder + file.path)
        # No content coding: ranges and digests are those of the file.
        return Call("GET", where, no_content, headers={**headers, "Accept-Encoding": "identity"})

    @contextlib.contextmanager
    def appending(self, file: ModelFile, response: httpx.Response) -> Iterator[IO[bytes]]:
        """Open the partial file for a response: appended to if that is a range, else written from the start."""
        mode = "ab" if response.status_code == 206 else "wb"
        with open(self._aside / file.path, mode) as part:
            yield part
        if (self._aside / file.path).stat().st_size < file.bytes:
            raise CannotReachServer(str(response.request.url), "the answer ended before the file did")

    def verify(self, file: ModelFile) -> None:
        """Check a file's digest. Raises `DigestMismatch`, and removes the file, if it is not the one announced."""
        part = self._aside / file.path
        if (found := _sha256(part)) != file.sha256:
            part.unlink()
            raise DigestMismatch(
                f"{file.path} has sha256 {found[:12]}…, announced was {file.sha256[:12]}…; it was removed, pull again"
            )

    def finish(self) -> Path:
        """Move the complete directory to `dest`."""
        if self._aside.exists():
            if self._is_complete(self._dest):
                shutil.rmtree(self._aside)
            else:
                os.replace(self._aside, self._dest)
        return self._dest

    def _is_complete(self, folder: Path) -> bool:
        return folder.is_dir() and bool(self._wanted.files) and all(
            (folder / file.path).is_file() and _sha256(folder / file.path) == file.sha256 for file in self._wanted.files
        )


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _quoted(file_path: str) -> str:
    return "/".join(path(part).removeprefix("/v1/") for part in PurePosixPath(file_path).parts)
