"""Positions in the data as they are stored."""

import pytest
from tinyclip_workers.data.stream.positions import DataPosition


def test_a_position_is_read_as_it_was_stored() -> None:
    position = DataPosition(epoch=2, batch=5)

    assert DataPosition.from_json(position.to_json(64), 64) == position


def test_with_another_batch_size_the_next_epoch_starts() -> None:
    assert DataPosition.from_json(DataPosition(2, 5).to_json(64), 32) == DataPosition(epoch=3)


def test_without_a_position_the_first_epoch_starts() -> None:
    assert DataPosition.from_json(None, 8) == DataPosition()


@pytest.mark.parametrize(
    ("positions", "epoch"),
    [
        pytest.param([{"batches": 3, "shares": {"0": [1, 3]}}], 2, id="first-version"),
        pytest.param([{"batches": 3, "shares": {"0": [1, 3], "1": [2, 0]}, "processes": 2, "epoch": 0}], 3, id="processes"),
        pytest.param([{"batches": 0, "shares": {}, "processes": 1, "epoch": 4}], 5, id="nothing-read"),
    ],
)
def test_positions_of_older_versions_continue_with_the_next_epoch(positions: list[object], epoch: int) -> None:
    assert DataPosition.from_json({"batch_size": 64, "positions": positions}, 64) == DataPosition(epoch=epoch)
