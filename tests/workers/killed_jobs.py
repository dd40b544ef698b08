"""Ray jobs in processes of their own that are killed at an exact point."""

import multiprocessing
import os
import pkgutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyclip.index_database import VARIABLE
from tinyclip_workers import jobs

from tests.workers.index_jobs import job_arguments

PRELOADED = [
    "tests.workers.killed_jobs", *(f"tinyclip_workers.{name}" for name in ("datasets.job", "engines.load", "retrieval.job")),
]


def kill_job(
    root: Path, job: str, target: str, *, after: bool = False, path: str = "", settings: Mapping[str, Any] | None = None
) -> None:
    """Run an index job and kill it where it calls `target`, as `kill_at`."""
    kill_at(job_arguments(root, job), root / "reached", target, after=after, path=path, settings=settings)


def kill_at(
    arguments: list[str],
    reached: Path,
    target: str,
    *,
    after: bool = False,
    path: str = "",
    settings: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a job and kill it where it calls `target`, or after that call returned.

    `reached`: a file that the process creates there. `path`: only at calls with a path that contains this text. `settings`:
    values of module variables by dotted name. `environment`: variables of the process.
    """
    context = multiprocessing.get_context("forkserver")  # its server has done the slow imports, and has no threads
    context.set_forkserver_preload(PRELOADED)
    variables = {name: os.environ[name] for name in (VARIABLE,) if name in os.environ} | dict(environment or {})
    reached.unlink(missing_ok=True)
    process = context.Process(target=_run_until, args=(variables, reached, target, after, path, settings or {}, arguments))
    process.start()
    deadline = time.monotonic() + 120
    while not reached.exists() and time.monotonic() < deadline:
        assert process.is_alive(), "the job ended before it could be killed"
        time.sleep(0.002)
    process.kill()
    process.join()
    reached.unlink()
    assert process.exitcode == -signal.SIGKILL


def _run_until(
    environment: Mapping[str, str], reached: Path, target: str, after: bool, path: str, settings: Mapping[str, Any],
    arguments: list[str],
) -> None:  # fmt: skip
    os.environ.update(environment)
    for setting, value in settings.items():
        module, _, name = setting.rpartition(".")
        setattr(pkgutil.resolve_name(module), name, value)
    owner_name, _, name = target.rpartition(".")
    owner = pkgutil.resolve_name(owner_name)
    call = getattr(owner, name)

    def hold(*args: Any, **kwargs: Any) -> Any:
        if path and not any(isinstance(arg, str) and path in arg for arg in args):
            return call(*args, **kwargs)
        if after:
            call(*args, **kwargs)
        reached.touch()
        time.sleep(600)

    setattr(owner, name, hold)
    sys.exit(jobs.main(arguments))
