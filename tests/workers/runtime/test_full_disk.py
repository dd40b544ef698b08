"""A disk without room is said with the path that did not fit, by workers, server and driver."""

import asyncio
import resource
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from ray.train.v2.api.exceptions import WorkerGroupError
from tinyclip_server.backends.artifacts import Store as ServerStore
from tinyclip_workers.runtime.store import Store
from tinyclip_workers.training.driver import reason_of


@contextmanager
def little_room() -> Iterator[None]:
    """No file of this process may grow beyond a page: like a full disk, `write` fails and names no file.

    Around nothing but the writing: what pytest prints may go to a file too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestWriting:
    def test_a_worker_names_the_path_and_leaves_what_was_there(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path))
        store.write_bytes("jobs/x/model", b"old")

        with pytest.raises(OSError, match=f"'{tmp_path}/jobs/x/model'$"), little_room():
            store.write_bytes("jobs/x/model", bytes(10_000))

        assert store.list("jobs/x") == ["model"]
        assert store.read_bytes("jobs/x/model") == b"old"

    def test_so_does_the_server(self, tmp_path: Path) -> None:
        store = ServerStore(str(tmp_path))

        with pytest.raises(OSError, match=f"'{tmp_path}/jobs/x/control.json'$"), little_room():
            asyncio.run(store.write("jobs/x/control.json", bytes(10_000)))

        assert list((tmp_path / "jobs" / "x").iterdir()) == []


def test_a_failed_attempt_says_what_its_first_worker_raised_and_no_traceback() -> None:
    full = OSError(28, "No space left on device", "/data/jobs/x/model")
    try:
        raise full
    except OSError:
        with_traceback = UserExceptionWithTraceback(full, traceback.format_exc())

    told = [
        reason_of(WorkerGroupError("[Rank 0 Error Snippet]:\nTraceback …", {1: RuntimeError("gloo"), 0: failure}))
        for failure in (full, with_traceback)
    ]

    assert told == ["worker 0: OSError: [Errno 28] No space left on device: '/data/jobs/x/model'"] * 2


def test_other_failures_are_said_with_their_kind() -> None:
    assert reason_of(KeyError("stage")) == "KeyError: 'stage'"
