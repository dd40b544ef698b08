"""Messages of failed attempts."""

import traceback

from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from ray.train.v2.api.exceptions import WorkerGroupError
from tinyclip_workers.training.driver import describe_failure


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
