"""Surroundings of every test: without the user's settings, and with a home folder of its own."""

import functools
import gc
import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.world import deployment, undisturbed, world  # noqa: F401 -- fixtures
from tests.fault_proxy import faulty_s3, proxied_s3  # noqa: F401 -- fixtures
from tests.postgres import index_database, postgres  # noqa: F401 -- fixtures

ROOT = Path(__file__).parents[1]
END_TO_END = ROOT / "tests" / "e2e"
IN_A_BROWSER = ROOT / "tests" / "console"

# The models of the tests are tiny: a second thread gains nothing, and on busy cores the two wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# ONNX Runtime sends usage data once it is imported, and some tests import it themselves.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

KEPT_VARIABLES = {"TINYCLIP_TEST_POSTGRES_URL", "TINYCLIP_TEST_PGVECTOR_URL", "TINYCLIP_FIXTURES"}
"""Variables that are kept. The third also reaches the processes of tests with several workers, which read the fixtures."""


@pytest.fixture(scope="session", autouse=True)
def isolated_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set a new home folder (Ray writes a token into it) and remove variables that point clients and Ray elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - KEPT_VARIABLES:
            if name.startswith(("TINYCLIP_", "RAY_")):
                patch.delenv(name)
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        for kind in ("CONFIG", "DATA", "CACHE"):
            patch.setenv(f"XDG_{kind}_HOME", str(home / kind.lower()))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # At Ray's niceness of 15, a worker process takes minutes to start beside other tests.
        patch.setenv("RAY_worker_niceness", "0")
        # Tests end processes, never the machine: what was written is read in any case, and a third of a job's time is saved.
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests that start Ray first, those end to end before the others: they take longest.

    A file is run by one worker (`--dist loadgroup`), and so are the end-to-end tests, which share a service and its cluster.
    """
    items.sort(key=lambda item: (item.get_closest_marker("ray") is None, item.path.parent not in (END_TO_END, IN_A_BROWSER)))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(str(item.path.relative_to(ROOT)))))


RARELY = 100
"""Collections of the middle generation before a full one, which without the modules in it would come often."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Exclude the modules from garbage collection: they have a million objects, and each full collection would take a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(*gc.get_threshold()[:2], RARELY)
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep a module in one pytest-xdist worker, with its fixtures, and with those of its `_group`.

    `--dist loadgroup` with a group per marker would do the same, but pytest-xdist 3.8 loses the groups with pytest 9.2.
    """
    from xdist.scheduler import LoadFileScheduling

    class ModuleScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid.split("::")[0])

    return ModuleScheduling(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let the tests that start Ray have the processors first: together, in one worker, they take longest."""
    if "PYTEST_XDIST_WORKER" in os.environ and item.get_closest_marker("ray") is None:
        _lower_priority()


@functools.cache
def _lower_priority() -> None:
    os.nice(5)


EXPORTING = ROOT / "tests" / "workers" / "exporting"


@functools.cache
def _group(module: str) -> str:
    """Return the name of the modules that run in one pytest-xdist worker: those that share what takes long to start.

    That is the service of the end-to-end tests, a cluster, the server that processes are forked from, or the libraries of
    export formats. The controller, which schedules, knows the names of the tests alone.
    """
    path = ROOT / module
    text = path.read_text()
    if path.parent == IN_A_BROWSER:
        return "e2e"
    if re.search(r"\bpytest\.mark\.ray\b|\bRAY_MARKS\b", text):
        return "e2e" if END_TO_END in path.parents else "ray"
    if re.search(r"\b(on_workers|kill_at|kill_attempt)\(", text):
        return "processes"
    return "exports" if EXPORTING in path.parents else module


@pytest.fixture(autouse=True)
def _require_device(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
