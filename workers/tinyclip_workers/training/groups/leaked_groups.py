"""Removal of placement groups that Ray has forgotten: groups of attempts whose Ray job has ended.

Ray removes a job's placement groups when the job ends. If a node with a driver is lost and returns, Ray Train's controller there
may request one more before it exits. Ray (2.60) keeps that group, with its CPUs and GPUs, for as long as the cluster runs.
"""

import logging

import ray
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.state import list_jobs

log = logging.getLogger(__name__)

SUBMISSION_PREFIX = "tc-"
"""The control plane submits its Ray jobs, attempts among them, under ids that begin with it."""
ENDED = {"FAILED", "STOPPED", "SUCCEEDED"}
JOB_ID_DIGITS = 8
"""The id of a placement group ends with the id of the Ray job that created it, in hexadecimal digits."""


def remove_leaked_groups() -> int:
    """Remove the placement groups of attempts that have ended, and return their number.

    Raises `ray.util.state.exception.RayStateApiException` if Ray's dashboard does not answer.
    """
    own = own_job()
    existing = [id for id, group in placement_group_table().items() if group["state"] != "REMOVED" and not id.endswith(own)]
    ended = {job for job in {id[-JOB_ID_DIGITS:] for id in existing} if _is_ended(job)}
    leaked = [id for id in existing if id[-JOB_ID_DIGITS:] in ended]
    for id in leaked:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(id))))
        log.warning("removed placement group %s of an attempt that has ended", id)
    return len(leaked)


def own_job() -> str:
    """Return the id of this driver's Ray job."""
    return ray.get_runtime_context().get_job_id()


def _is_ended(job: str) -> bool:
    """Return whether the control plane submitted this Ray job, and it has ended."""
    found = list_jobs(filters=[("job_id", "=", job)])
    return any((one.submission_id or "").startswith(SUBMISSION_PREFIX) and one.status in ENDED for one in found)
