"""Checkpoints: everything that the next step depends on, committed by a manifest that is written last.

Layout of `step-N/`: `model.safetensors`, `optimizer.safetensors`, before the prune step of an automatic stage also
`masks.safetensors` and `mask_optimizer.safetensors`, where the objective has a projection `projection.safetensors`; `state.json`;
`manifest.json` (sha256 of the others). A folder without a valid manifest does not exist. There is no random state to keep: every
draw of the engine is seeded by (seed, step).
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from tinyclip.artifacts.paths import MANIFEST, checkpoint, is_checkpoints_folder
from tinyclip.artifacts.store import ArtifactsStore
from torch import Tensor

from tinyclip_workers.runtime.committed import read_committed, write_committed

log = logging.getLogger(__name__)

TENSORS = ".safetensors"


@dataclass
class Checkpoint:
    """One committed checkpoint, read back."""

    path: str
    tensors: dict[str, dict[str, Tensor]]
    """By the name of the file, as `model`."""
    state: dict[str, Any]


def save_checkpoint(
    store: ArtifactsStore, folder: str, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any]
) -> tuple[str, int]:
    """Write `folder/step-N`; returns its path and size in bytes. Raises OSError naming the path (a full disk, say)."""
    path = checkpoint(folder, step)
    files = {f"{name}{TENSORS}": to_safetensors(_contiguous(named)) for name, named in tensors.items()}
    files["state.json"] = json.dumps({**state, "step": step}).encode()
    write_committed(store, path, files)
    return path, sum(len(data) for data in files.values())


def latest_checkpoint(store: ArtifactsStore, stage_folder: str) -> Checkpoint | None:
    """The furthest committed checkpoint of a stage, over all attempts (`stage_folder/a<n>/step-<N>`)."""
    for _, _, path in sorted(checkpoints_of(store, stage_folder), reverse=True):
        files = read_committed(store, path)
        if files is not None:
            return Checkpoint(
                path=path,
                tensors={
                    name.removesuffix(TENSORS): from_safetensors(data) for name, data in files.items() if name.endswith(TENSORS)
                },
                state=json.loads(files["state.json"]),
            )
    return None


def checkpoints_of(store: ArtifactsStore, stage_folder: str) -> list[tuple[int, int, str]]:
    """(step, attempt, path) of every checkpoint folder of a stage, whole or not."""
    return [
        (_number(step), _number(attempt), f"{stage_folder}/{attempt}/{step}")
        for attempt in store.list(stage_folder)
        if is_checkpoints_folder(attempt)
        for step in store.list(f"{stage_folder}/{attempt}")
        if step.startswith("step-")
    ]


def remove_old_checkpoints(store: ArtifactsStore, folder: str, keep: int) -> None:
    """Keep the newest `keep` of one attempt's checkpoints of a stage."""
    steps = sorted((name for name in store.list(folder) if name.startswith("step-")), key=_number)
    for name in steps[:-keep]:
        store.remove(f"{folder}/{name}/{MANIFEST}")  # first it stops counting, then it goes
        store.remove(f"{folder}/{name}")


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's moments and step counts by `<parameter number>.<name>`."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, values in state.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`; learning rates are set by the schedule, not restored."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".")
        like = parameters[int(number)]
        # The fused AdamW walks memory in order: a moment must be laid out as its parameter is (channels last, for one).
        laid_out = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(number), {})[name] = laid_out
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _number(name: str) -> int:
    digits = "".join(c for c in name if c.isdigit())
    return int(digits) if digits else -1
