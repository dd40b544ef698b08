"""Converted models on a replica's own disk, so that only the first start of a version converts it.

An entry is a folder with a manifest of its files' digests. One process at a time writes it to a temporary folder, which is then
renamed. An incomplete or changed entry is created again. The cache may be deleted at any moment.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from tinyclip_workers.model.files.weights import file_digest
from tinyclip_workers.runtime.addresses import ServiceAddress

log = logging.getLogger(__name__)

ENGINE_CACHE = "TINYCLIP_ENGINE_CACHE"
MANIFEST = "manifest.json"
MAX_ENTRIES = 32
"""The least recently used entries beyond this number are deleted."""


def default_folder() -> Path:
    """Return `$TINYCLIP_ENGINE_CACHE`, or a folder of this user.

    It must not be one that other users can write to: its content is loaded as a model.
    """
    if configured := os.environ.get(ENGINE_CACHE):
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinyclip" / "engines"


def get_or_create(root: Path, key: dict[str, object], create: Callable[[Path], None]) -> Path:
    """Return the entry's folder, filled by `create` if there is no intact one. Raises OSError if `root` cannot be written."""
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    root.mkdir(parents=True, exist_ok=True)
    entry = root / name
    with FileLock(root / f"{name}.lock"):
        if not _is_intact(entry):
            shutil.rmtree(entry, ignore_errors=True)
            _write_entry(root, entry, create)
        os.utime(entry)
    _evict_oldest(root)
    return entry


def _write_entry(root: Path, entry: Path, create: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{entry.name}.", suffix=".tmp", dir=root) as temporary:
        folder = Path(temporary) / "entry"
        folder.mkdir()
        create(folder)
        files = {path.name: file_digest(ServiceAddress(path)) for path in sorted(folder.iterdir())}
        (folder / MANIFEST).write_text(json.dumps(files), "utf-8")
        for path in folder.iterdir():
            _fsync(path)
        _fsync(folder)
        folder.rename(entry)
    _fsync(root)


def _is_intact(entry: Path) -> bool:
    try:
        files: dict[str, str] = json.loads((entry / MANIFEST).read_text("utf-8"))
        return bool(files) and all(file_digest(ServiceAddress(entry / name)) == digest for name, digest in files.items())
    except (OSError, ValueError, AttributeError):
        return False


def _evict_oldest(root: Path) -> None:
    """Delete the least recently used entries. A process that has one open can still read it."""
    entries = sorted((path for path in root.iterdir() if path.is_dir()), key=_last_used, reverse=True)
    for path in entries[MAX_ENTRIES:]:
        log.info("deleting the converted model %s", path.name)
        shutil.rmtree(path, ignore_errors=True)
        Path(f"{path}.lock").unlink(missing_ok=True)


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process deleted it
        return 0.0


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
