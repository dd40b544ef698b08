"""A Ray cluster for the tests of this package that run jobs on one."""

from collections.abc import Iterator

import pytest
import ray

from tests.s3 import s3_environment
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
