"""A retry goes on where other jobs ended: their finished students and furthest checkpoint become this job's own.

It happens in the first attempt, before anything is trained. Manifests are copied last, so what a kill cuts off does not count
and is copied again; afterwards the jobs that were adopted from may be deleted.
"""

from collections.abc import Sequence

from tinyclip_workers.runtime.attempt import JobRun
from tinyclip_workers.runtime.committed import MANIFEST, read_committed
from tinyclip_workers.runtime.store import Store
from tinyclip_workers.training.checkpoints import checkpoints_of

ADOPTED = "a0"
"""Adopted checkpoints stand where attempt 0 would have them; attempts count from 1."""


def adopt(run: JobRun) -> str | None:
    """Copy what `run.document.adopts` have to go on from. Returns the checkpoint or student that is the furthest, if any."""
    furthest = None
    for index in range(len(run.spec.stages) if run.document.adopts else 0):
        own = run.stage_folder(index)
        theirs = [f"jobs/{job}/{own.removeprefix(f'jobs/{run.document.job}/')}" for job in run.document.adopts]
        student = _adopt_first(run.store, [f"{folder}/student" for folder in theirs], f"{own}/student")
        if student is not None:
            furthest = student
            continue
        found = sorted((place for folder in theirs for place in checkpoints_of(run.store, folder)), reverse=True)
        for step, _, path in found:
            if _adopt_first(run.store, [path], f"{own}/{ADOPTED}/step-{step}"):
                return path
        return furthest
    return furthest


def _adopt_first(store: Store, candidates: Sequence[str], target: str) -> str | None:
    """Copy the first candidate that is whole, unless it was done before."""
    for path in candidates:
        if store.exists(f"{target}/{MANIFEST}"):
            return path
        if read_committed(store, path) is not None:
            names = [name for name in store.list(path) if name != MANIFEST]
            for name in [*names, MANIFEST]:
                store.copy(f"{path}/{name}", f"{target}/{name}")
            return path
    return None
