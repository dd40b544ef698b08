"""Converted models on a replica's own disk, so that only the first start of a version converts it.

An entry is a folder with a manifest of its files' digests. It is made aside and renamed, by one process at a time; what is torn
or changed counts for nothing and is made again. The cache may be deleted at any moment.
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

from tinyclip_workers.model.weights import file_digest

log = logging.getLogger(__name__)

ENGINE_CACHE = "TINYCLIP_ENGINE_CACHE"
MANIFEST = "manifest.json"
KEPT = 32
"""Entries, the last used ones."""


def default_folder() -> Path:
    """`$TINYCLIP_ENGINE_CACHE`, or this user's: what lies in a folder that others can write would be loaded as a model."""
    if told := os.environ.get(ENGINE_CACHE):
        return Path(told)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinyclip" / "engines"


def cached(root: Path, key: dict[str, object], make: Callable[[Path], None]) -> Path:
    """The entry's folder, made by `make` where there is none that is whole. Raises OSError where `root` cannot be written."""
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    root.mkdir(parents=True, exist_ok=True)
    entry = root / name
    with FileLock(root / f"{name}.lock"):
        if not _is_whole(entry):
            shutil.rmtree(entry, ignore_errors=True)
            _make(root, entry, make)
        os.utime(entry)
    _forget_oldest(root)
    return entry


def _make(root: Path, entry: Path, make: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{entry.name}.", suffix=".tmp", dir=root) as aside:
        folder = Path(aside) / "entry"
        folder.mkdir()
        make(folder)
        files = {path.name: file_digest(str(path)) for path in sorted(folder.iterdir())}
        (folder / MANIFEST).write_text(json.dumps(files), "utf-8")
        for path in folder.iterdir():
            _flush(path)
        _flush(folder)
        folder.rename(entry)
    _flush(root)


def _is_whole(entry: Path) -> bool:
    try:
        files: dict[str, str] = json.loads((entry / MANIFEST).read_text("utf-8"))
        return bool(files) and all(file_digest(str(entry / name)) == digest for name, digest in files.items())
    except (OSError, ValueError, AttributeError):
        return False


def _forget_oldest(root: Path) -> None:
    """A folder that another process has open stays readable to it until it lets go."""
    known = sorted((path for path in root.iterdir() if path.is_dir()), key=_last_used, reverse=True)
    for path in known[KEPT:]:
        log.info("forgetting the converted model %s", path.name)
        shutil.rmtree(path, ignore_errors=True)
        Path(f"{path}.lock").unlink(missing_ok=True)


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
