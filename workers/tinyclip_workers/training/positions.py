"""Positions of all workers in the data: in checkpoints, and beside a finished student for the stage that follows."""

from typing import Any

import torch.distributed as dist

from tinyclip_workers.data.stream import DataPosition
from tinyclip_workers.training.distributed import rank, world_size


def all_positions(own: DataPosition) -> list[dict[str, Any]]:
    """Return the positions of all workers as plain data, in rank order. Collective."""
    positions: list[Any] = [own.to_json()] * world_size()
    if world_size() > 1:
        dist.all_gather_object(positions, own.to_json())
    return positions


def own_position(positions: list[dict[str, Any]]) -> DataPosition:
    """Return this worker's position. With another number of workers than before, all start the next epoch."""
    found = [DataPosition.from_json(position) for position in positions]
    return found[rank()] if len(found) == world_size() else _next_epoch(found)


def position_after(data: dict[str, Any] | None, batch_size: int) -> DataPosition:
    """Return where a stage starts: where the stage before it ended.

    `data` is what `position_document` returned at the end of that stage; without it, for the first stage or after a student of
    an older version, the stage starts with the first epoch. Positions count batches: with another batch size than before, all
    workers start the next epoch.
    """
    if data is None:
        return DataPosition()
    if data["batch_size"] != batch_size:
        return _next_epoch([DataPosition.from_json(position) for position in data["positions"]])
    return own_position(data["positions"])


def position_document(own: DataPosition, batch_size: int) -> dict[str, Any]:
    """Return the positions at the end of a stage as plain data; `batch_size` is that of all workers together. Collective."""
    return {"batch_size": batch_size, "positions": all_positions(own)}


def _next_epoch(positions: list[DataPosition]) -> DataPosition:
    return max((position.next_epoch() for position in positions), key=lambda position: position.epoch)
