"""Run a Serve application on a Ray of its own until its standard input closes; print `ready` and the port of Ray's metrics.

    python -m tests.workers.serve_process ARGS_JSON PORT RAY_DIR

It is a process of its own because Ray changes the state of the process that starts it, and warns in it.
"""

import json
import sys

import ray
from ray import serve
from tinyclip_workers.serving import build


def main() -> None:
    args, port = json.loads(sys.argv[1]), int(sys.argv[2])
    ray.init(
        address="local", num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False, log_to_driver=True,
        _temp_dir=sys.argv[3], _system_config={"metrics_report_interval_ms": 500},
    )  # fmt: skip
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(args), name=args["name"], route_prefix=f"/{args['name']}")
    print(f"ready {ray.nodes()[0]['MetricsExportPort']}", flush=True)
    sys.stdin.read()
    ray.shutdown()


if __name__ == "__main__":
    main()
