"""A Ray cluster for the tests that run jobs on one, and whole jobs in this process for those that kill attempts."""

from collections.abc import Callable, Iterator

import pytest
import ray
from tinyclip.schemas import JobSpec

from tests.s3 import s3_environment
from tests.workers.attempts import Job, no_cluster, specs_in
from tests.workers.ray_jobs import S3_PORT


@pytest.fixture(scope="package")
def ray_cluster() -> Iterator[None]:
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        **s3_environment(S3_PORT),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        ray.init(address="local", num_cpus=4, object_store_memory=80_000_000, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


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
