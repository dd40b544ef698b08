"""A Ray cluster for the tests that kill jobs and tasks."""

from collections.abc import Iterator

import pytest

from tests.workers.ray_jobs import local_cluster


@pytest.fixture(scope="package")
def ray_cluster() -> Iterator[None]:
    """A cluster of this process, on which two shards are scanned at once."""
    with local_cluster(2):
        yield
