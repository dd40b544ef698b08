"""A fault of an elastic job: its node is killed; it continues on the workers that are left, and grows when another node joins."""

import time

import torch
from safetensors.torch import load
from tinyclip.schemas import JobState

from bench.chaos.case import CaseContext
from bench.chaos.jobs import RunningJob
from bench.chaos.kills import LATE_SECONDS
from bench.chaos.machine import wait_until

LARGEST_DIFFERENCE = 1e-3
"""Of a weight from the undisturbed student's, relative to the largest weight of its tensor: sums of other groups are rounded
differently, and the optimizer enlarges that from step to step."""


def shrink_and_grow(context: CaseContext) -> str:
    """Kill the node of the second worker, and let another one join when the job has advanced with one worker."""
    profile, cluster = context.profile, context.profile.cluster
    assert cluster is not None
    job = context.submit()
    for seed in context.seeds:
        killed = next(node for node in profile.nodes if node.has_joined)
        added = next(node for node in profile.nodes if not node.has_joined)
        job.wait_until(lambda: _sizes(job)[-1:] == [2], "a group of two workers")
        job.wait_for_steps(job.steps_done() + 1)
        time.sleep(context.random(seed).uniform(0, LATE_SECONDS))
        with context.fault(job, seed):
            killed.kill()
            cluster.wait_for_loss(killed.address)
            job.wait_until(lambda: _sizes(job)[-1:] == [1], "a group of one worker")
            job.wait_for_steps(job.steps_done() + 1)
        added.join(cluster, cluster.folder.parent)
        wait_until(lambda node=added: profile.workers() & node.processes(), "a training worker on the new node")
    difference = _difference(context, job)
    if difference > LARGEST_DIFFERENCE:
        context.problems.append(f"its weights differ by {difference:.1e} from the undisturbed student's")
    sizes = ", ".join(map(str, _sizes(job)))
    return f"groups of {sizes} workers; weights within {difference:.0e} of the undisturbed student's"


def _sizes(job: RunningJob) -> list[int]:
    """Return the sizes of the groups that the newest attempt has started."""
    return [line["data"]["workers"] for line in job.reported(job.newest_attempt()) if line["type"] == "worker_group.sized"]


def _difference(context: CaseContext, job: RunningJob) -> float:
    """Return the largest difference of the students' weights, relative to the largest weight of the tensor."""
    job.wait_for_state(*(state for state in JobState if state.terminal))
    wanted, found = (_weights(job, id) for id in (context.undisturbed.job, job.id))
    assert wanted.keys() == found.keys()
    differences = [(found[name] - weights).abs().max() / weights.abs().max().clamp_min(1e-12) for name, weights in wanted.items()]
    return float(torch.stack(differences).max())


def _weights(job: RunningJob, id: str) -> dict[str, torch.Tensor]:
    shown = job.client.jobs.get(id)
    assert shown.model is not None, f"{id} ended without a model: {shown.error}"
    path = f"models/{shown.model.name}/{shown.model.version}/open_clip_model.safetensors"
    return {name: weights.double() for name, weights in load(job.files.read(path)).items()}
