"""The control file, and an elastic group's own request to stop."""

from pathlib import Path

import pytest
from tinyclip.artifacts.documents import Control
from tinyclip.artifacts.paths import group_stop, job_control
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip_workers.runtime.control import Command, ControlFile


@pytest.fixture
def store(tmp_path: Path) -> ArtifactsStore:
    return ArtifactsStore(str(tmp_path))


def write(store: ArtifactsStore, fence: int, desired: str) -> None:
    store.write_bytes(job_control("job_1"), Control(fence=fence, desired=desired).model_dump_json().encode())


def test_a_request_to_stop_is_for_one_group_only(store: ArtifactsStore) -> None:
    store.write_bytes(group_stop("job_1", 1, "0-1"), b"")

    asked, next_one, fixed = (ControlFile(store, "job_1", 1, group=group).read() for group in ("0-1", "0-2", ""))

    assert (asked, next_one, fixed) == (Command.REGROUP, Command.RUN, Command.RUN)


@pytest.mark.parametrize(
    ("fence", "desired", "command"),
    [(1, "run", Command.REGROUP), (1, "pause", Command.PAUSE), (1, "cancel", Command.CANCEL), (2, "run", Command.FENCED)],
)
def test_a_command_to_the_job_comes_before_it(store: ArtifactsStore, fence: int, desired: str, command: Command) -> None:
    store.write_bytes(group_stop("job_1", 1, "0-1"), b"")
    write(store, fence, desired)

    assert ControlFile(store, "job_1", 1, group="0-1").read() is command


def test_a_store_that_cannot_be_read_stops_no_group(store: ArtifactsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bool:
        raise OSError("the store does not answer")

    store.write_bytes(group_stop("job_1", 1, "0-1"), b"")
    control = ControlFile(store, "job_1", 1, group="0-1")
    with monkeypatch.context() as outage:
        outage.setattr(ArtifactsStore, "exists", fail)
        outage.setattr(ArtifactsStore, "read_bytes", fail)
        during = control.read()

    assert (during, control.read()) == (Command.RUN, Command.REGROUP)
