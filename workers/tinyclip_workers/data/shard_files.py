"""The files of shards as their stores describe them: size, and a stamp that changes with the content."""

from dataclasses import dataclass
from typing import Any

from tinyclip_workers.runtime.filesystems import open_filesystem
from tinyclip_workers.runtime.user_files import store_errors

STAMPS = ("mtime", "ETag", "LastModified", "Last-Modified")
"""Fields of a file's description, of which one changes with its content: local, S3 and other stores, http."""


@dataclass(frozen=True)
class ShardFile:
    """The description of a shard's file."""

    bytes: int
    """0 if its store does not report it."""
    stamp: str
    """Size and time or checksum; "" if its store reports neither time nor checksum."""


def describe_shard(url: str) -> ShardFile:
    """Return a shard's size and stamp. Raises FileNotFoundError, another OSError, or ValueError if its scheme has no driver."""
    fs, path = open_filesystem(url)
    with store_errors(url):
        info: dict[str, Any] = fs.info(path)
    size, stamp = int(info.get("size") or 0), next((info[field] for field in STAMPS if info.get(field)), "")
    return ShardFile(size, f"{size} {stamp}" if stamp else "")
