"""`tinyclip-client cluster`."""

import typer

from tinyclip._resources import cluster as calls
from tinyclip.cli.display.console import console, new_table, print_table
from tinyclip.cli.display.numbers import MISSING, size
from tinyclip.cli.session import AsJson, run
from tinyclip.schemas import Amount, Cluster, ClusterNode


def cluster(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the nodes of the Ray cluster and what runs on them."""
    run(context, calls.get(), _show, as_json)


def _show(cluster: Cluster) -> None:
    out = console()
    where = f", dashboard at {cluster.dashboard_url}" if cluster.dashboard_url else ""
    out.print(f"Ray {cluster.ray_version}{where}", markup=False)
    hosts = {node.id: node.hostname or node.ip for node in cluster.nodes}
    nodes = new_table(out, "node", "state", "CPUs", "load %", "GPUs", "memory", "object store", right=("load %",))
    for node in cluster.nodes:
        load = MISSING if node.cpu_percent is None else f"{node.cpu_percent:.0f}"
        memory, objects = _bytes(node.memory), _bytes(node.object_store)
        nodes.add_row(hosts[node.id], _state(node), _count(node.cpus), load, _count(node.gpus), memory, objects)
    print_table(out, nodes)
    if cluster.workloads:
        work = new_table(out, "kind", "name", "status", "nodes", "Ray's id")
        for one in cluster.workloads:
            at = ", ".join(hosts.get(node, node[:8]) for node in one.nodes) or MISSING
            work.add_row(one.kind, one.name, one.status, at, one.submission_id or one.replica or MISSING)
        print_table(out, work)
    if cluster.others:
        out.print(f"{cluster.others} of other projects or programs", markup=False)


def _state(node: ClusterNode) -> str:
    return ("head" if node.is_head else "alive") if node.alive else "left"


def _count(amount: Amount) -> str:
    return f"{amount.total:g}" if amount.used is None else f"{amount.used:g}/{amount.total:g}"


def _bytes(amount: Amount) -> str:
    return size(amount.total) if amount.used is None else f"{size(amount.used)}/{size(amount.total)}"
