"""Back up and restore an embedded service: `tinyclip-server backup` and `tinyclip-server restore`.

A backup is a folder with a copy of the database and one of the artifacts. The database is copied first: files are written
before the rows that name them, so the copy of the artifacts contains them. If some were removed meanwhile, both are copied again.

The service may run. A kill leaves no folder under the name of the backup, and no database in the place of the restored one.
"""

import asyncio
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from filelock import FileLock, Timeout

from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.database.engine import Database
from tinyclip_server.database.locks import DatabaseInUse, sole_server, sqlite_file
from tinyclip_server.database.migrate import CannotMigrate, WrongRevision, upgrade
from tinyclip_server.local.reconcile import reconcile
from tinyclip_server.local.stored_files import examine
from tinyclip_server.orchestration.installation import take_over
from tinyclip_server.settings import Settings

DATABASE, ARTIFACTS = "tinyclip.db", "artifacts"
ROUNDS = 3
"""Copies of database and artifacts that are made while files disappear between the two."""
CHUNK = 1 << 20
ASIDE = ".tmp"
"""Files of a write in progress end with it."""
DOCUMENTATION = "see docs/operations.md, section Backup"


T = TypeVar("T")


class CannotBackUp(Exception):
    """A backup or a restore that was not made; the message has the reason and what to do."""


@dataclass(frozen=True)
class Copied:
    """The content of a backup, or of a restored service."""

    files: int
    bytes: int
    missing: list[str]
    """Paths that the database names and the artifacts lack."""
    changed: list[str] = field(default_factory=list)
    """Numbers that a restore has raised, in words."""


@dataclass(frozen=True)
class _Data:
    """The two places of an embedded service's data."""

    database: Path
    artifacts: Path


def back_up(settings: Settings, target: Path) -> Copied:
    """Write a backup into a folder that does not exist yet. Raises CannotBackUp, OSError."""
    data, target = _data(settings), target.expanduser().absolute()
    if not data.database.exists():
        raise CannotBackUp(f"there is no database {data.database}; choose another --data-dir")
    if target.exists():
        raise CannotBackUp(f"{target} exists; name a new folder for each backup")
    if target.is_relative_to(data.artifacts):
        raise CannotBackUp(f"{target} is in the artifacts that are backed up; name a folder elsewhere")
    unfinished = target.with_name(f"{target.name}.unfinished")
    with _lock(settings.data_dir / "backup.lock", "another backup of this service is running"):
        unfinished.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in range(ROUNDS):
            _copy_database(data.database, unfinished / DATABASE)
            _mirror(data.artifacts, unfinished / ARTIFACTS)
            copied = _check(unfinished / DATABASE, unfinished / ARTIFACTS)
            if not copied.missing:
                break
        os.sync()
        unfinished.rename(target)
    return copied


def restore(settings: Settings, source: Path) -> Copied:
    """Put a backup in place of a service that does not run and has no data. Raises CannotBackUp, OSError."""
    data, source = _data(settings), source.expanduser().absolute()
    if not (source / DATABASE).is_file() or not (source / ARTIFACTS).is_dir():
        raise CannotBackUp(f"{source} is no backup: it needs {DATABASE} and {ARTIFACTS}/")
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with _stopped(settings):
        interrupted = settings.data_dir / "restore.unfinished"
        if data.database.exists():
            raise CannotBackUp(f"{data.database} exists; move it and {data.artifacts} away, or choose another --data-dir")
        if data.artifacts.is_dir() and any(data.artifacts.rglob("*")):
            if not interrupted.exists() or interrupted.read_text() != str(data.artifacts):
                raise CannotBackUp(f"{data.artifacts} is not empty; move it away, or choose another --data-dir")
            shutil.rmtree(data.artifacts)
        new = _Data(_beside(data.database), _beside(data.artifacts))
        new.database.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("", "-wal", "-shm", "-journal"):  # of a restore that was interrupted
            Path(f"{new.database}{suffix}").unlink(missing_ok=True)
        shutil.copyfile(source / DATABASE, new.database)
        _mirror(source / ARTIFACTS, new.artifacts)
        copied = _bring_up(new, settings)
        _make_single_file(new.database)
        interrupted.write_text(str(data.artifacts))  # from here on, what is there is a part of this restore
        os.sync()
        new.artifacts.rename(data.artifacts)
        new.database.rename(data.database)
        os.sync()
        interrupted.unlink()
    return copied


def _data(settings: Settings) -> _Data:
    """Return the places of the data. Raises CannotBackUp unless both are on this machine's disks."""
    database = sqlite_file(settings.async_database_url)
    if database is None:
        raise CannotBackUp(f"the database is a PostgreSQL, which pg_dump backs up: {DOCUMENTATION}")
    if "://" in settings.artifacts_root:
        raise CannotBackUp(f"the artifacts are at {settings.artifacts_root}, not in a folder: {DOCUMENTATION}")
    return _Data(database, Path(settings.artifacts_root))


@contextmanager
def _stopped(settings: Settings) -> Iterator[None]:
    """Hold the locks of a running service."""
    with _lock(settings.data_dir / "lock", f"a tinyclip-server uses {settings.data_dir}; stop it first"):
        try:
            with sole_server(settings.async_database_url):
                yield
        except DatabaseInUse as error:
            raise CannotBackUp(str(error)) from error


@contextmanager
def _lock(path: Path, message: str) -> Iterator[None]:
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise CannotBackUp(message) from None


def _copy_database(source: Path, target: Path) -> None:
    """Copy a SQLite database in use, as it is at one moment, into a single file."""
    with (
        closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True, timeout=60.0)) as live,
        closing(sqlite3.connect(target)) as copy,
    ):
        live.backup(copy)
    _make_single_file(target)


def _make_single_file(database: Path) -> None:
    """Move what is in the write-ahead log of a closed database into it, and remove the log."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")


def _mirror(source: Path, target: Path) -> None:
    """Make a folder contain the files of another one: files that are new or have changed are copied, others removed."""
    target.mkdir(parents=True, exist_ok=True)
    kept = set()
    for path in _files(source):
        copy = target / path.relative_to(source)
        try:
            if not _is_same(path, copy):
                _copy(path, copy)
        except FileNotFoundError:  # removed meanwhile
            continue
        kept.add(copy)
    for path in _files(target):
        if path not in kept:
            path.unlink()


def _copy(path: Path, copy: Path) -> None:
    """Copy one file and its time of change: those of the same file, also if another one takes its name meanwhile."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "rb") as source, open(copy, "wb") as target:
        shutil.copyfileobj(source, target, CHUNK)
        stat = os.fstat(source.fileno())
    os.utime(copy, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names if not name.endswith(ASIDE) and not os.path.islink(Path(parent, name)))


def _is_same(path: Path, copy: Path) -> bool:
    """Compare size and time of change: files of the store are replaced as a whole, never changed in place."""
    if not copy.exists():
        return False
    one, other = path.stat(), copy.stat()
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _check(database: Path, artifacts: Path) -> Copied:
    """Look for missing files. Raises CannotBackUp for a database of a newer release."""
    with tempfile.TemporaryDirectory(dir=database.parent, prefix="check-") as folder:
        scratch = Path(folder, DATABASE)  # migrated to the newest revision, which the copy is not
        shutil.copyfile(database, scratch)
        missing = _run(scratch, artifacts, examine).missing
    return Copied(*_size(database, artifacts), missing)


def _bring_up(new: _Data, settings: Settings) -> Copied:
    """Migrate a restored database and bring it up to its artifacts. Raises CannotBackUp for one of a newer release."""
    outcome = _run(new.database, new.artifacts, partial(reconcile, index_database_url=settings.index_database_url))
    _run(new.database, new.artifacts, partial(take_over, root=settings.artifacts_root))  # the copy's owner may be a later one
    for folder in outcome.unknown:
        shutil.rmtree(new.artifacts / folder)
    return Copied(*_size(new.database, new.artifacts), outcome.missing, outcome.changed)


def _run(database: Path, artifacts: Path, work: Callable[[Database, AsyncArtifactsStore], Awaitable[T]]) -> T:
    async def migrate_and_work() -> T:
        url = f"sqlite+aiosqlite:///{database}"
        await upgrade(url)
        db = Database(url)
        try:
            return await work(db, AsyncArtifactsStore(str(artifacts)))
        finally:
            await db.close()

    try:
        return asyncio.run(migrate_and_work())
    except (WrongRevision, CannotMigrate) as error:
        raise CannotBackUp(str(error)) from error


def _size(database: Path, artifacts: Path) -> tuple[int, int]:
    sizes = [path.stat().st_size for path in (database, *_files(artifacts))]
    return len(sizes), sum(sizes)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.restoring")
