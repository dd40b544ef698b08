"""Workers wait for one that works alone, as worker 0 in an evaluation, longer than a collective may take."""

import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from tinyclip_workers.data.stream.batches import Batch, slots_of
from tinyclip_workers.training.distributed import from_first_worker, prepare_to_wait, wait_for_all
from torch.distributed.distributed_c10d import _set_pg_timeout

from tests.workers.auto_stages import BATCH, STUDENT, batches_of, hooks, spec_of, trainer_of
from tests.workers.processes import on_workers
from tests.workers.shapes_data import write_shards

LIMIT_S, ALONE_S = 0.2, 0.6
MANUAL = {"name": "manual", "inherit": "manual", "student": STUDENT.model_dump(exclude_none=True), "train": {"steps": 4}}


def work_alone(rank: int) -> dict[str, Any]:
    """Let worker 0 work alone for longer than the limit of a collective, twice; the second time the other does not wait."""
    prepare_to_wait()
    dist.barrier()
    _set_pg_timeout(timedelta(seconds=LIMIT_S), dist.group.WORLD)
    if rank == 0:
        time.sleep(ALONE_S)
    wait_for_all()
    together = time.monotonic()
    try:
        if rank == 0:
            time.sleep(ALONE_S)
        dist.barrier()
    except RuntimeError as error:
        return {"together": together, "error": str(error)}
    return {"together": together, "error": ""}


def trained_times(rank: int, shards: str) -> dict[str, list[float]]:
    """Return when this worker's steps began and its hooks ended; worker 0 is slow in its hooks."""
    prepare_to_wait()
    spec = spec_of(shards, MANUAL, evaluation={"every_steps": 2}, checkpoint={"every_steps": 3})
    trainer = trainer_of(spec)
    part = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
    parts = (
        slots_of(whole, part) for whole in batches_of(trainer)
    )
    ended: list[float] = []
    began: list[float] = []
    prepare = trainer.prepare

    def begin(batch: Batch) -> Any:
        began.append(time.monotonic())
        return prepare(batch)

    def alone(_: Any) -> None:
        if rank == 0:
            time.sleep(0.2)
        ended.append(time.monotonic())

    trainer.prepare = begin  # type: ignore[method-assign]
    trainer.run(parts, hooks(evaluate=alone, checkpoint=alone))
    return {"began": began, "ended": ended}


def value_of_first(rank: int) -> Any:
    return from_first_worker({"rank": rank, "tensor": torch.ones(2)})["rank"]


def test_waiting_has_no_limit_where_collectives_have_one() -> None:
    first, second = on_workers(2, work_alone)

    assert abs(first["together"] - second["together"]) < ALONE_S
    assert "timed out" in (first["error"] + second["error"]).lower()


def test_no_step_begins_before_worker_0_has_evaluated_and_saved(tmp_path: Any) -> None:
    first, second = on_workers(2, trained_times, write_shards(tmp_path))

    evaluated, saved, _ = first["ended"]  # after steps 2, 3 and 4
    assert second["began"][2] > evaluated
    assert second["began"][3] > saved


def test_all_get_the_value_of_worker_0() -> None:
    assert on_workers(2, value_of_first) == [0, 0]
