"""A Ray cluster for the tests that run jobs on one, and whole jobs in this process for those that kill attempts."""

from collections.abc import Callable, Iterator

import pytest
from tinyclip.schemas import JobSpec

from tests.workers.attempts import Job, no_cluster, specs_in
from tests.workers.ray_jobs import ray_cluster  # noqa: F401 -- a fixture


@pytest.fixture(scope="module")
def without_a_cluster() -> Iterator[None]:
    """Let jobs run in this process, with one worker."""
    with no_cluster():
        yield


@pytest.fixture(scope="module")
def spec_of_stages(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., JobSpec]:
    return specs_in(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def uninterrupted(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    spec_of_stages: Callable[..., JobSpec],
    without_a_cluster: None,
) -> Job:
    """The module's STAGES as a job, finished by its first attempt."""
    job = Job(tmp_path_factory.mktemp("uninterrupted"), spec_of_stages(*request.module.STAGES))
    assert job.attempt()
    return job
