"""A Ray cluster for the tests that kill jobs and tasks."""

from tests.workers.ray_jobs import ray_cluster  # noqa: F401 -- a fixture
