"""Room for elastic groups, on a real local Ray with 4 CPUs."""

import threading

import pytest
from ray.util import placement_group, placement_group_table, remove_placement_group
from tinyclip.schemas.spec import WorkerRange
from tinyclip_workers.training.groups import room
from tinyclip_workers.training.groups.room import largest_with_room, watch_for_room
from tinyclip_workers.training.groups.sizes import MAX_WORKERS, group_sizes, next_size

from tests.workers.ray_jobs import RAY_MARKS
from tests.workers.training.groups.test_placement import reserved

pytestmark = RAY_MARKS
ONE = {"CPU": 1.0}


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"CHECK_S": 0.1, "PLACE_S": 2.0, "SETTLE_S": 0.2}.items():
        monkeypatch.setattr(room, name, seconds)


@pytest.mark.parametrize(
    ("workers", "batch_size", "sizes"),
    [(3, 12, [3]), (5, 12, []), ((1, 6), 12, [1, 2, 3, 4, 6]), ((5, 9), 12, [6]), ((7, 11), 12, []), ((2, 10**9), 4, [2, 4])],
)
def test_sizes_divide_the_batch(workers: int | tuple[int, int], batch_size: int, sizes: list[int]) -> None:
    counts = workers if isinstance(workers, int) else WorkerRange(min=workers[0], max=workers[1])

    assert group_sizes(counts, batch_size) == sizes


def test_sizes_are_bounded() -> None:
    assert group_sizes(WorkerRange(min=MAX_WORKERS, max=10**15), 10**15) == [MAX_WORKERS]
    assert (next_size([1, 2, 4], 2), next_size([1, 2, 4], 4)) == (4, None)


def test_the_largest_size_is_that_for_which_there_is_room_beside_others() -> None:
    assert largest_with_room([1, 2, 4, 8], ONE) == 4
    with reserved(1):
        assert largest_with_room([1, 2, 4], ONE) == 2
    with reserved(4):
        assert largest_with_room([1, 2], ONE) == 1  # Ray Train waits for it
    assert not _reservations()


def test_room_for_a_larger_group_is_found_when_there_is_some() -> None:
    found, called = list[int](), threading.Event()

    def add(size: int) -> None:
        found.append(size)
        called.set()

    own = placement_group([ONE])  # as Ray Train reserves for the group
    assert own.wait(30)
    with reserved(3) as release, watch_for_room([1, 3], 1, ONE, add):
        assert not called.wait(1)
        release()
        assert called.wait(30)
    remove_placement_group(own)

    assert found == [3]
    assert not _reservations()


def test_a_watch_that_ends_leaves_no_reservation() -> None:
    own = placement_group([ONE])
    assert own.wait(30)
    with reserved(3), watch_for_room([1, 2], 1, ONE, lambda size: pytest.fail(f"there is no room for {size}")):
        threading.Event().wait(1)
        assert len(_reservations()) == 2
    remove_placement_group(own)

    assert not _reservations()


def _reservations() -> list[str]:
    return [str(group["state"]) for group in placement_group_table().values() if group["state"] != "REMOVED"]


def test_a_request_that_cannot_be_written_leaves_the_group_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    called = threading.Event()

    def fail(size: int) -> None:
        called.set()
        raise OSError(28, "No space left on device")

    own = placement_group([ONE])
    assert own.wait(30)
    with watch_for_room([1, 2], 1, ONE, fail):
        assert called.wait(30)
    remove_placement_group(own)

    assert "the group cannot grow any more: [Errno 28] No space left on device" in caplog.text
    assert not _reservations()
