"""How attempts that fail or are superseded end."""

import os
import sys
import traceback
from pathlib import Path

import pytest
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from ray.train.v2.api.exceptions import WorkerGroupError
from tinyclip.artifacts.documents import Control
from tinyclip.artifacts.paths import job_control
from tinyclip_workers.training import driver
from tinyclip_workers.training.groups.group import describe_failure

from tests.workers.attempts import TWO, Job
from tests.workers.auto_stages import spec_of


class ExitedAtOnceError(Exception):
    """Raised in place of `os._exit`."""


def test_a_failed_attempt_reports_the_error_of_its_first_worker_without_traceback() -> None:
    full = OSError(28, "No space left on device", "/data/jobs/x/model")
    try:
        raise full
    except OSError:
        with_traceback = UserExceptionWithTraceback(full, traceback.format_exc())

    messages = [
        describe_failure(WorkerGroupError("[Rank 0 Error Snippet]:\nTraceback …", {1: RuntimeError("gloo"), 0: failure}))
        for failure in (full, with_traceback)
    ]

    assert messages == ["worker 0: OSError: [Errno 28] No space left on device: '/data/jobs/x/model'"] * 2


def test_other_failures_are_reported_with_their_type() -> None:
    assert describe_failure(KeyError("stage")) == "KeyError: 'stage'"


@pytest.mark.parametrize(("fence", "error"), [(1, SystemExit), (2, ExitedAtOnceError)])
def test_only_a_superseded_driver_exits_without_rays_shutdown(
    fence: int, error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(tmp_path / "artifacts", spec_of("shards.tar", *TWO))

    def run_attempt(*_: object) -> bool:
        job.store.write_bytes(job_control("job_1"), Control(fence=fence).model_dump_json().encode())
        return True

    def exit_at_once(status: int) -> None:
        raise ExitedAtOnceError(status)

    monkeypatch.setattr(driver, "run_attempt", run_attempt)
    monkeypatch.setattr(os, "_exit", exit_at_once)
    monkeypatch.setattr(sys, "argv", ["driver", "--artifacts", job.root, "--job", "job_1", "--attempt", "1"])

    with pytest.raises(error) as exited:
        driver.main()
    assert exited.value.args == (0,)
