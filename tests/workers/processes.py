"""Several real workers in one test: gloo process groups on this machine."""

import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

PRELOADED = ["tests.workers.attempts", "tests.workers.trajectory", "pytest"]
"""Slow imports of the server that worker processes are forked from; it has no threads."""


def on_workers(world_size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Call `function(rank, *args)` in each of `world_size` processes; returns the results. The function must be importable."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        start_processes(_worker, (world_size, folder, function, args), nprocs=world_size, start_method="forkserver")
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(world_size)]


def _worker(rank: int, world_size: int, folder: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    try:
        torch.save(function(rank, *args), Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
