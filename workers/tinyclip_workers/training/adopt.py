"""A retry goes on where other jobs ended: their finished students and furthest checkpoint become this job's own.

It happens in the first attempt, before anything is trained. Manifests are copied last, so what a kill cuts off does not count
and is copied again; afterwards the jobs that were adopted from may be deleted.
"""

from collections.abc import Sequence

from tinyclip.artifacts.paths import MANIFEST, checkpoint, stage_checkpoints, stage_folder, stage_student
from tinyclip.artifacts.store import ArtifactsStore

from tinyclip_workers.runtime.attempt import JobRun
from tinyclip_workers.runtime.committed import read_committed
from tinyclip_workers.training.checkpoints import checkpoints_of

ADOPTED = 0
"""The attempt whose folder holds the adopted checkpoints; attempts count from 1."""


def adopt(run: JobRun) -> str | None:
    """Copy what `run.document.adopts` have to go on from. Returns the checkpoint or student that is the furthest, if any."""
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
