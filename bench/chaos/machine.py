"""Helpers of the cases: waiting, time limits, disks that can be filled, and processes by name."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tinyclip_server.local.machine import marked_processes

TIMEOUT_SECONDS = 600.0
"""Default time limit, with a margin for a busy machine."""


def wait_until(condition: Callable[[], object], what: str, seconds: float = TIMEOUT_SECONDS, every: float = 0.1) -> None:
    """Wait until a condition holds. Raises `TimeoutError` naming it."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(every)


@contextlib.contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """Raise `TimeoutError` in the main thread if the context lasts longer."""

    def expire(*_: object) -> None:
        raise TimeoutError(f"{what} took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def kill(pids: set[int]) -> None:
    """Kill processes (SIGKILL), ignoring those that have already exited."""
    _send(signal.SIGKILL, pids)


def suspend(pids: set[int]) -> None:
    """Suspend processes (SIGSTOP), ignoring those that have already exited."""
    _send(signal.SIGSTOP, pids)


def resume(pids: set[int]) -> None:
    """Resume suspended processes (SIGCONT), ignoring those that have already exited."""
    _send(signal.SIGCONT, pids)


def running(pids: set[int]) -> set[int]:
    """Return those of the processes that have not exited; zombies have."""
    return {pid for pid in pids if _state(pid) not in ("", "Z", "X")}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _send(number: signal.Signals, pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def processes_of(marker: str, *names: str) -> set[int]:
    """Return the cluster's processes with one of the names in their command line."""
    return {pid for pid in marked_processes(marker) if any(name in _command(pid) for name in names)}


def kill_all(marker: str) -> None:
    """Kill all processes of a cluster; repeat, because a killed process may have started others meanwhile."""
    def none_left() -> bool:
        left = marked_processes(marker)
        kill(left)
        return not left

    wait_until(none_left, f"the end of all processes of {marker}")


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@contextlib.contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[None]:
    """Mount a separate file system at `folder`, which can be filled safely. Needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tinyclip-chaos", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class DiskFiller:
    """A file that occupies the free space of a disk."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "ballast"

    def fill(self, keep_free: int = 0) -> None:
        """Occupy all but `keep_free` bytes; a further call occupies space freed since."""
        with open(self._file, "ab") as file:
            disk = os.statvfs(self._file)
            take = disk.f_bavail * disk.f_frsize - keep_free
            if take > 0:
                with contextlib.suppress(OSError):  # other processes write at the same time
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, take)

    @contextlib.contextmanager
    def keep_full(self) -> Iterator[None]:
        """Keep the disk full within the context, also when other processes free space."""
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
