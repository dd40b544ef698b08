"""The jobs that a server may lease: conditions on a job joined with its newest attempt.

An attempt belongs to the cluster that it is submitted to, and only servers of that cluster can ask for its status. Servers of
another cluster on the same database leave it alone, unless all servers of its cluster have been away for long.

Leases are compared with the clock of each server. A clock that is ahead takes over a live server's jobs too early, which
costs time only: writes need the lease's token. `doctor` compares the clocks.
"""

from datetime import timedelta

from sqlalchemy import ColumnElement

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import AttemptRow, JobRow
from tinyclip_server.jobs.lifecycle import ABANDONED_SECONDS


def claimable(owner: str, cluster: str) -> ColumnElement[bool]:
    """Select the jobs of this server, and those without a valid lease that it can continue."""
    at = now()
    local = AttemptRow.cluster.is_(None) | (AttemptRow.cluster == cluster)
    abandoned = JobRow.lease_until < at - timedelta(seconds=ABANDONED_SECONDS)
    free = JobRow.lease_until.is_(None) | (JobRow.lease_until < at)
    return (JobRow.lease_owner == owner) | (free & local) | abandoned


def of_lost_cluster(owner: str, cluster: str) -> ColumnElement[bool]:
    """Select the jobs whose attempt ran on a cluster that has ended, and those whose attempt no server has claimed.

    A valid lease does not protect the former: its holder may have been killed with the cluster a moment ago.
    """
    at = now()
    unclaimed = AttemptRow.cluster.is_(None) & (
        (JobRow.lease_owner == owner) | JobRow.lease_until.is_(None) | (JobRow.lease_until < at)
    )
    return (AttemptRow.cluster == cluster) | unclaimed

