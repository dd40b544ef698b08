"""The cases of the table in `docs/reliability.md`, in its order."""

from bench.chaos import elastic, kills, lost_nodes, outages, suspensions
from bench.chaos.case import Case

MANY = {"max_attempts": 100}
STALLED = {**MANY, "timeouts": {"progress_seconds": 90}}
EMBEDDED, PRODUCTION, S3, NODES = ("SQLite",), ("PostgreSQL",), ("S3",), ("drivers on nodes",)

CASES = [
    Case("control-plane", "kill -9 of the control plane", kills.kill_plane, spec="long"),
    Case("driver", "kill -9 of the driver", kills.kill_drivers, EMBEDDED, changes=MANY, faults=3, attempts=(1, 1)),
    Case("driver", "kill -9 of the driver", kills.kill_drivers, PRODUCTION, changes=MANY, jobs=4, attempts=(1, 1)),
    Case("worker", "kill -9 of the training worker", kills.kill_workers, EMBEDDED, changes=MANY, faults=3, attempts=(0, 1)),
    Case("worker", "kill -9 of the training worker", kills.kill_workers, PRODUCTION, "long", changes=MANY, attempts=(0, 1)),
    Case("ray-head", "kill -9 of the Ray head (GCS and raylet)", kills.kill_head, changes=MANY, faults=2, attempts=(0, 1)),
    Case("database", "PostgreSQL stopped", outages.stop_database, PRODUCTION, "long"),
    Case("two-control-planes", "a second control plane on one folder", kills.start_second_on_same_folder, EMBEDDED, faults=3),
    Case("two-control-planes", "two control planes, killed in turn", kills.kill_each_plane, PRODUCTION, "long", planes=2,
         jobs=2),
    Case("plane-stopped", "two control planes, SIGSTOP in turn for longer than a lease, then SIGCONT",
         suspensions.suspend_each_plane, PRODUCTION, "long", planes=2, jobs=2),
    Case("driver-stopped", "SIGSTOP of the driver for longer than a lease, then SIGCONT", suspensions.suspend_driver, PRODUCTION,
         "long"),
    Case("worker-stopped", "SIGSTOP of the training worker for longer than a lease, then SIGCONT", suspensions.suspend_worker,
         PRODUCTION, "long"),
    Case("driver-hung", "a driver hangs (SIGSTOP) for good", suspensions.hang_drivers, PRODUCTION, changes=STALLED, jobs=4,
         attempts=(1, 2), seconds=1500),
    Case("ray-partition", "a partition between control plane and Ray", outages.cut_off_ray, PRODUCTION, jobs=4),
    Case("store-partition", "a partition between the nodes and the object store", outages.cut_off_store, S3, "long"),
    Case("store-lost", "the object store's responses are lost", outages.lose_responses, S3, jobs=4),
    Case("store-slow", "the object store is slow", outages.slow_down_store, S3, jobs=2),
    Case("store-503", "the object store answers 503", outages.answer_503, S3, jobs=2),
    Case("store-hung", "the object store hangs", outages.hang_store, S3, "long"),
    Case("head-and-orphan", "kill -9 of the Ray head; orphans beside their successors on another node", lost_nodes.lose_head,
         NODES, "long", changes=MANY, jobs=4, attempts=(1, 1), needs_root=True, seconds=2400),
    Case("node-returns", "a node is gone, and returns after another one has continued its jobs", lost_nodes.lose_node,
         NODES, "long", changes=MANY, jobs=4, attempts=(1, 1), needs_root=True, seconds=2400),
    Case("node-returns-late", "a node is gone for ten minutes, and returns after the end of its jobs",
         lost_nodes.lose_node_for_long, NODES, changes=MANY, jobs=2, faults=2, attempts=(1, 1), needs_root=True, on_request=True),
    Case("node", "kill -9 of a node; another one joins", kills.kill_node, ("two nodes",), "pair", faults=1, attempts=(0, 1),
         needs_root=True),
    Case("elastic", "a job on 1 to 2 workers: kill -9 of a node, then another one joins", elastic.shrink_and_grow,
         ("two nodes",), "elastic", faults=1, exact=False, needs_root=True),
    Case("disk-full", "the disk is full, then there is room", outages.fill_disk, faults=1, attempts=(0, 1), needs_root=True),
    Case("no-room", "a checkpoint does not fit; room is made, then `jobs retry`", outages.leave_no_space_for_a_checkpoint,
         PRODUCTION, changes={"max_attempts": 1}, faults=1, needs_root=True),
]  # fmt: skip
