"""Checkpoints: everything that the next step depends on, committed by a manifest that is written last.

Files of `step-N/`: `model.safetensors`, `optimizer.safetensors`; before the prune step of an automatic stage also
`masks.safetensors` and `mask_optimizer.safetensors`; `projection.safetensors` if the objective has one; `average.safetensors` if
weights are averaged; `nesting.safetensors` if embeddings are nested; `state.json`; `manifest.json` (SHA-256 of the others). A
folder without a valid manifest is ignored. No random state is saved: every draw of the engine is seeded by (seed, step).
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from tinyclip.artifacts.paths import (
    MANIFEST,
    checkpoint,
    is_checkpoints_folder,
    stage_checkpoints,
    stage_folder,
    stage_student,
)
from tinyclip.artifacts.store import ArtifactsStore
from torch import Tensor

from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.runtime.committed import read_committed, write_committed

log = logging.getLogger(__name__)

TENSORS = ".safetensors"
ADOPTED = 0
"""The attempt whose folder holds the adopted checkpoints; attempts count from 1."""


@dataclass
class Checkpoint:
    """One committed checkpoint, read back."""

    path: str
    tensors: dict[str, dict[str, Tensor]]
    """By the name of the file, for example `model`."""
    state: dict[str, Any]


def save_checkpoint(
    store: ArtifactsStore, folder: str, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any]
) -> tuple[str, int]:
    """Write `folder/step-N`; returns its path and size in bytes. Raises OSError naming the path, for example on a full disk."""
    path = checkpoint(folder, step)
    files = {f"{name}{TENSORS}": to_safetensors(_contiguous(named)) for name, named in tensors.items()}
    files["state.json"] = json.dumps({**state, "step": step}).encode()
    write_committed(store, path, files)
    return path, sum(len(data) for data in files.values())


def latest_checkpoint(store: ArtifactsStore, folder: str) -> Checkpoint | None:
    """Read the furthest committed checkpoint of a stage, over all attempts (`folder/a<n>/step-<N>`)."""
    for _, _, path in sorted(checkpoints_of(store, folder), reverse=True):
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


def furthest_step(store: ArtifactsStore, folder: str) -> int:
    """Return the step of the furthest checkpoint of a stage, committed or not; 0 without one."""
    return max((step for step, _, _ in checkpoints_of(store, folder)), default=0)


def checkpoints_of(store: ArtifactsStore, folder: str) -> list[tuple[int, int, str]]:
    """List (step, attempt, path) of every checkpoint folder of a stage, committed or not."""
    return [
        (_number(step), _number(attempt), f"{folder}/{attempt}/{step}")
        for attempt in store.list(folder)
        if is_checkpoints_folder(attempt)
        for step in store.list(f"{folder}/{attempt}")
        if step.startswith("step-")
    ]


def remove_old_checkpoints(store: ArtifactsStore, folder: str, keep: int) -> None:
    """Keep the newest `keep` of one attempt's checkpoints of a stage."""
    steps = sorted((name for name in store.list(folder) if name.startswith("step-")), key=_number)
    for name in steps[:-keep]:
        store.remove(f"{folder}/{name}/{MANIFEST}")  # from here on it is no checkpoint
        store.remove(f"{folder}/{name}")


def adopt(run: JobAttempt) -> str | None:
    """Make other jobs' finished students and furthest checkpoint this job's own, so that a retry continues from them.

    Happens in the first attempt, before any training. Manifests are copied last, so a copy that is cut off does not count and
    is repeated; afterwards the jobs in `run.document.adopts` may be deleted. Returns the furthest student or checkpoint, if any.
    """
    furthest = None
    for index in range(len(run.spec.stages) if run.document.adopts else 0):
        name = run.spec.stages[index].name
        students = [stage_student(job, index, name) for job in run.document.adopts]
        student = _adopt_first(run.store, students, run.student_folder(index))
        if student is not None:
            furthest = student
            continue
        theirs = [stage_folder(job, index, name) for job in run.document.adopts]
        found = sorted((place for folder in theirs for place in checkpoints_of(run.store, folder)), reverse=True)
        own = stage_checkpoints(run.document.job, index, name, ADOPTED)
        for step, _, path in found:
            if _adopt_first(run.store, [path], checkpoint(own, step)):
                return path
        return furthest
    return furthest


def _adopt_first(store: ArtifactsStore, candidates: Sequence[str], target: str) -> str | None:
    """Copy the first committed candidate, unless a copy exists."""
    for path in candidates:
        if store.exists(f"{target}/{MANIFEST}"):
            return path
        if read_committed(store, path) is not None:
            names = [name for name in store.list(path) if name != MANIFEST]
            for name in [*names, MANIFEST]:
                store.copy(f"{path}/{name}", f"{target}/{name}")
            return path
    return None


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _number(name: str) -> int:
    digits = "".join(c for c in name if c.isdigit())
    return int(digits) if digits else -1
