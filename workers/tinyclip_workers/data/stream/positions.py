"""Positions in the data, the same for all workers: in checkpoints, and beside a finished student for the stage that follows."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DataPosition:
    """Where a stream continues: epoch, and global batches of it that were trained on."""

    epoch: int = 0
    batch: int = 0

    def to_json(self, batch_size: int) -> dict[str, Any]:
        """Return plain data; positions count batches of `batch_size`, that of all workers together."""
        return {"epoch": self.epoch, "batch": self.batch, "batch_size": batch_size}

    @classmethod
    def from_json(cls, data: Any, batch_size: int) -> "DataPosition":
        """Return a position that `to_json` stored.

        The stream continues with the next epoch if it has another batch size, or if an older version stored the position, whose
        order was another one.
        """
        if data is None:
            return cls()
        if "epoch" not in data:
            return cls(epoch=1 + max(_old_epoch(position) for position in data["positions"]))
        if data["batch_size"] != batch_size:
            return cls(epoch=data["epoch"] + 1)
        return cls(int(data["epoch"]), int(data["batch"]))


def _old_epoch(position: dict[str, Any]) -> int:
    """Return the furthest epoch of a worker's loader processes in a position of an older version."""
    return max(int(epoch) for epoch in [position.get("epoch", 0), *(epoch for epoch, _ in position["shares"].values())])
