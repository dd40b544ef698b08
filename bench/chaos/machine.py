"""What the cases need of the machine: waiting, disks that can be filled, processes by what they are."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tinyclip_server.local.machine import marked_processes

PATIENT = 600.0
"""Seconds that anything may take on a machine that others use too."""


def until(true: Callable[[], object], what: str, seconds: float = PATIENT, every: float = 0.1) -> None:
    """Returns once it is true. Raises TimeoutError naming what was waited for."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(every)


def kill(pids: set[int]) -> None:
    """kill -9; those that have ended meanwhile are fine."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def processes_of(marker: str, *names: str) -> set[int]:
    """Living processes that carry the marker of a cluster and have one of the names in their command line; all without names."""
    marked = marked_processes(marker)
    return {pid for pid in marked if not names or any(name in _command(pid) for name in names)}


def end_all(marker: str) -> None:
    """Nothing that carries the marker is left; killing may orphan others that do, so until there are none."""
    def none_left() -> bool:
        left = marked_processes(marker)
        kill(left)
        return not left

    until(none_left, f"the end of everything of {marker}")


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@contextlib.contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[None]:
    """A file system of its own at `folder`, which can be full without hurting anybody. Needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tinyclip-chaos", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Ballast:
    """A file that takes what room a disk has left."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "ballast"

    def fill(self, leave: int = 0) -> None:
        """Take all but `leave` bytes; called again, what has become free since."""
        with open(self._file, "ab") as file:
            disk = os.statvfs(self._file)
            take = disk.f_bavail * disk.f_frsize - leave
            if take > 0:
                with contextlib.suppress(OSError):  # others write too
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, take)

    @contextlib.contextmanager
    def keep_full(self) -> Iterator[None]:
        """What others remove is taken at once."""
        over = threading.Event()

        def fill() -> None:
            while not over.wait(0.02):
                self.fill()

        filler = threading.Thread(target=fill)
        filler.start()
        try:
            yield
        finally:
            over.set()
            filler.join()
            self.free()

    def free(self) -> None:
        self._file.unlink()
