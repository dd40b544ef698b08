"""Whole files on a local disk: written aside, flushed, and given their name in one step that a power failure does not undo."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

Check = Callable[[], None]

_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF}
"""Errors of network file systems that do not flush folders."""


def replace_file(target: Path, source: Path | bytes, *, check: Check = lambda: None) -> None:
    """Write a file, replacing an older one. `source` is its content, or a file to copy. Raises OSError naming the target.

    `check`, here and below, is called right before a name changes: it raises if the caller may no longer do so.
    """
    with _written_aside(target, source) as aside:
        check()
        os.replace(aside, target)
        sync_folder(target.parent)


def create_file(target: Path, data: bytes, *, check: Check = lambda: None) -> None:
    """Write a new file. Raises FileExistsError where the name is taken, and OSError naming the target."""
    with _written_aside(target, data) as aside:
        check()
        os.link(aside, target)  # unlike a rename, this fails where the name is taken
        sync_folder(target.parent)


def link_file(target: Path, source: Path) -> None:
    """Give a file that never changes another name, replacing an older file; copy it on a file system without links."""
    make_folders(target.parent)
    aside = _aside(target)
    try:
        os.link(source, aside)
    except FileNotFoundError:
        raise
    except OSError:
        replace_file(target, source)
        return
    try:
        os.replace(aside, target)  # does nothing if the target is a link to the source already
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(target.parent)


def remove_tree(path: Path, *, check: Check) -> None:
    """Delete a file, or a folder with everything below it. What another process deletes meanwhile is no error."""
    if path.is_symlink() or not path.is_dir():
        check()
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError):
        for entry in list(path.iterdir()):
            remove_tree(entry, check=check)
        check()
        path.rmdir()


def make_folders(folder: Path) -> None:
    """Create a folder and its parents, durably."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk: without this a power failure can undo a rename that was acknowledged."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _written_aside(target: Path, source: Path | bytes) -> Iterator[Path]:
    """Yield a flushed file beside its target, removed at the end unless it was renamed. Raises OSError naming the target."""
    aside = _aside(target)
    try:
        make_folders(target.parent)
        with open(aside, "wb") as file:
            if isinstance(source, bytes):
                file.write(source)
            else:
                with open(source, "rb") as original:
                    shutil.copyfileobj(original, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        yield aside
    except OSError as error:  # the error of a full disk names no path
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        aside.unlink(missing_ok=True)


def _aside(target: Path) -> Path:
    return target.with_name(f"{target.name}.{uuid.uuid4().hex}.tmp")
