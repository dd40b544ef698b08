"""The built files of the console, read and compressed when they are first requested."""

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

BUILT = Path(__file__).parent / "built"
COMPRESSIBLE = frozenset({"text/html", "text/css", "text/javascript", "image/svg+xml", "application/json"})

mimetypes.add_type("text/javascript", ".js")  # whatever the machine's own table says


@dataclass(frozen=True)
class BuiltFile:
    """One file in both encodings."""

    media_type: str
    plain: bytes
    gzipped: bytes | None
    etag: str


@lru_cache(maxsize=1024)
def read_built(name: str) -> BuiltFile | None:
    """Return a file by its path below `built`; None if there is none. Only names of files that exist are looked up."""
    if name not in built_names():
        return None
    content = (BUILT / name).read_bytes()
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    gzipped = gzip.compress(content, compresslevel=9, mtime=0) if media_type in COMPRESSIBLE else None
    return BuiltFile(media_type, content, gzipped, hashlib.sha256(content).hexdigest()[:32])


@lru_cache(maxsize=1)
def built_names() -> frozenset[str]:
    """Return the paths of all files below `built`: a request can name no other file."""
    return frozenset(path.relative_to(BUILT).as_posix() for path in BUILT.rglob("*") if path.is_file())
