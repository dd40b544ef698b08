"""Training workers of the Ray cluster that this process started, not of any other on this machine."""

import os
import signal
from pathlib import Path


def kill_train_workers(count: int | None = None) -> list[int]:
    """Kill every training worker at once, as the loss of a machine would, or some of them; returns their process ids."""
    return kill_ray_processes("RayTrainWorker", count)


def kill_ray_processes(name: str, count: int | None = None) -> list[int]:
    """Kill processes that run a task or an actor whose name begins so, without `count` all; returns their process ids."""
    pids = [pid for pid in _descendants(os.getpid()) if _command(pid).startswith(f"ray::{name}")][:count]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return pids


def _descendants(ancestor: int) -> list[int]:
    parents = {int(folder.name): _parent(folder) for folder in Path("/proc").iterdir() if folder.name.isdigit()}
    found, waiting = [], [ancestor]
    while waiting:
        parent = waiting.pop()
        children = [pid for pid, its_parent in parents.items() if its_parent == parent]
        found += children
        waiting += children
    return found


def _parent(process: Path) -> int:
    try:
        status = (process / "stat").read_text()
    except OSError:  # it has ended meanwhile
        return 0
    return int(status.rsplit(")", 1)[1].split()[1])


def _command(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_text()
    except OSError:
        return ""
