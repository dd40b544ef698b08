"""Simulated machines for nodes: network and process namespaces on one bridge."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.chaos.cluster import RayCluster
from bench.chaos.machine import wait_until

BRIDGE = f"tc-{os.getpid()}"
NETWORK = "10.213.77"
"""A rarely used private network; its first address is that of the bridge and of the head."""


@dataclass
class Node:
    """A node in a namespace with its own address."""

    namespace: str
    address: str
    _process: "subprocess.Popen[bytes] | None" = None

    def processes(self) -> set[int]:
        """Return the process ids of its processes on the host."""
        listed = subprocess.run(["ip", "netns", "pids", self.namespace], check=True, capture_output=True, text=True)
        return set(map(int, listed.stdout.split()))

    def join(self, cluster: RayCluster, temp: Path) -> None:
        """Start its raylet, with one CPU, and wait until it has joined the cluster."""
        inside = ["ip", "netns", "exec", self.namespace, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
        temp.mkdir()
        self._process = cluster.launch(
            f"--address={cluster.gcs}", f"--node-ip-address={self.address}", "--num-cpus=1", f"--temp-dir={temp}",
            inside=inside, environment={"GLOO_SOCKET_IFNAME": "eth0"},
        )
        wait_until(lambda: self.address in cluster.alive(), f"node {self.address} to join")

    def kill(self) -> None:
        """Kill all its processes at once, by killing the first process of its namespace."""
        assert self._process is not None, "the node has not joined a cluster"
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def network(nodes: int) -> Iterator[list[Node]]:
    """Create a bridge and connect a namespace to it for each node. Needs root and iproute2."""
    with contextlib.ExitStack() as stack:
        _ip(f"link add {BRIDGE} type bridge")
        stack.callback(_ip, f"link delete {BRIDGE}")
        _ip(f"address add {NETWORK}.1/24 dev {BRIDGE}")
        _ip(f"link set {BRIDGE} up")
        made = []
        for number in range(2, 2 + nodes):
            name = f"{BRIDGE}-{number}"
            _ip(f"netns add {name}")
            stack.callback(_ip, f"netns delete {name}")
            node = Node(name, f"{NETWORK}.{number}")
            _ip(f"link add {name} type veth peer name eth0 netns {name}")
            stack.callback(_ip, f"link delete {name}")  # it would exist until connections of dead processes time out
            _ip(f"link set {name} master {BRIDGE} up")
            _ip(f"-netns {name} address add {node.address}/24 dev eth0")
            _ip(f"-netns {name} link set eth0 up")
            _ip(f"-netns {name} link set lo up")
            made.append(node)
        yield made


def _ip(arguments: str) -> None:
    """Run `ip`. Raises `CalledProcessError`."""
    subprocess.run(["ip", *arguments.split()], check=True)
