"""What holds for every test: no settings of the user's reach it, and nothing of it reaches the user's home."""

import os
from collections.abc import Iterator

import pytest

from tests.postgres import index_database, postgres  # noqa: F401 -- fixtures

# The models of the tests are tiny: a second thread gains nothing, and where cores are taken the two wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# ONNX Runtime sends usage data from the moment it is imported, which some tests do themselves.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

GIVEN_BY_CI = {"TINYCLIP_TEST_POSTGRES_URL", "TINYCLIP_TEST_PGVECTOR_URL", "TINYCLIP_FIXTURES"}
"""Kept: the third also reaches the processes that tests of several workers start, which read the fixtures again."""


@pytest.fixture(scope="session", autouse=True)
def own_surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home of its own (Ray writes a token into it) and none of the variables that point clients and Ray elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - GIVEN_BY_CI:
            if name.startswith(("TINYCLIP_", "RAY_")):
                patch.delenv(name)
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        for kind in ("CONFIG", "DATA", "CACHE"):
            patch.setenv(f"XDG_{kind}_HOME", str(home / kind.lower()))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for pytest-xdist: a module stays in one worker, with its fixtures, and so do all tests that start Ray.

    Ray's group is the longest and comes first, so that the other worker has the rest meanwhile.
    """
    for item in items:
        group = "ray" if item.get_closest_marker("ray") else item.nodeid.split("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


@pytest.fixture(autouse=True)
def _needs_its_device(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
