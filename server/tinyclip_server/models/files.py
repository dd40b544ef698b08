"""Downloads of a version's files or ranges of them (RFC 9110) from any artifacts store.

Only files that the version's document lists are served, so no path leads out of its folder.
"""

from collections.abc import AsyncIterator

from fastapi import Request
from starlette.responses import Response, StreamingResponse
from tinyclip.artifacts.paths import model_version
from tinyclip.schemas import ModelFile, ModelVersion
from tinyclip.schemas.exports import EXPORTS

from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.http.conditions import matches, quoted
from tinyclip_server.problems import ApiError, NotFound

READ_CHUNK = 1 << 20


class RangeNotSatisfiable(ApiError):
    status, code = 416, "range_not_satisfiable"


def find_file(version: ModelVersion, path: str) -> ModelFile:
    """Return a file of a version. Raises NotFound."""
    for file in version.files:
        if file.path == path:
            return file
    known = ", ".join(file.path for file in version.files)
    raise NotFound(f"{version.name}@{version.version} has no file {path}; it has {known}", code="no_such_file")


async def file_response(request: Request, store: AsyncArtifactsStore, version: ModelVersion, file: ModelFile) -> Response:
    """Return 200 with a file, 206 with the requested range, or 304. Raises RangeNotSatisfiable, NotFound."""
    path = f"{model_version(version.name, version.version)}/{file.path}"
    caching = "no-cache" if file.path.startswith(f"{EXPORTS}/") else "max-age=31536000, immutable"  # an export may be repeated
    headers = {"ETag": quoted(file.sha256), "Accept-Ranges": "bytes", "Cache-Control": f"private, {caching}"}
    if matches(request.headers.get("if-none-match"), file.sha256):
        return Response(status_code=304, headers=headers)
    if not await store.exists(path):
        raise NotFound(f"{store.uri(path)} is missing in the artifacts store", code="file_missing")
    span = _range(request, file)
    start, end = span or (0, file.bytes)
    headers["Content-Length"] = str(end - start)
    if span:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.bytes}"
    body = _chunks(store, path, start, end)
    return StreamingResponse(body, 206 if span else 200, headers, media_type=_media_type(file.path))


def _range(request: Request, file: ModelFile) -> tuple[int, int] | None:
    """Return [start, end) of a single range; None for several ranges or another state of the file: the whole file."""
    header = request.headers.get("range", "")
    if_range = request.headers.get("if-range")
    if not header.startswith("bytes=") or "," in header or len(header) > 50 or (if_range and not matches(if_range, file.sha256)):
        return None
    first, dash, last = header.removeprefix("bytes=").strip().partition("-")
    if not dash or not (first or last) or not (first + last).isdecimal():
        return None
    start, end = (int(first), min(int(last) + 1 if last else file.bytes, file.bytes)) if first else _suffix(last, file.bytes)
    if start >= end:
        raise RangeNotSatisfiable(f"{file.path} has {file.bytes} bytes; {header} lies outside")
    return start, end


def _suffix(last: str, size: int) -> tuple[int, int]:
    return max(0, size - int(last)), size


async def _chunks(store: AsyncArtifactsStore, path: str, start: int, end: int) -> AsyncIterator[bytes]:
    while start < end:
        chunk = await store.read_range(path, start, min(start + READ_CHUNK, end))
        if not chunk:
            raise OSError(f"{store.uri(path)} ends before byte {end}")
        yield chunk
        start += len(chunk)


def _media_type(path: str) -> str:
    if path.endswith(".json"):
        return "application/json"
    return "text/markdown; charset=utf-8" if path.endswith(".md") else "application/octet-stream"
