"""A Ray cluster for the jobs that make reinforcements, and a registered data set."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from tests.workers.shapes_data import write_shards
from tests.workers.students import write_student


@pytest.fixture(scope="package")
def ray_cluster() -> Iterator[None]:
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        ray.init(address="local", num_cpus=2, object_store_memory=80_000_000, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a random teacher."""
    return f"local-dir:{write_student(tmp_path_factory.mktemp('teachers') / 'teacher')}"


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pattern of six shards, whose captions repeat within and between shards."""
    return write_shards(tmp_path_factory.mktemp("shapes"), shards=6, pairs=40)


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")
