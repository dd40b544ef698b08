"""Simulated machines for nodes: network and process namespaces on one bridge."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.chaos.cluster import RayCluster
from bench.chaos.machine import resume, running, suspend, wait_until

BRIDGE = f"tc-{os.getpid()}"
OWN_PROCESSES = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
"""Runs a command that sees no other processes, among which `ray start` looks for a cluster, and ends with all of its own."""
NETWORK = "10.213.77"
"""A rarely used private network; its first address is that of the bridge and of the head."""

JOIN_SECONDS = 300.0


@dataclass
class Node:
    """A node in a namespace with its own address."""

    namespace: str
    address: str
    cpus: int
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def has_joined(self) -> bool:
        return self._process is not None

    def processes(self) -> set[int]:
        """Return the process ids of its processes on the host."""
        listed = subprocess.run(["ip", "netns", "pids", self.namespace], check=True, capture_output=True, text=True)
        return set(map(int, listed.stdout.split()))

    def join(self, cluster: RayCluster, folder: Path) -> None:
        """Start its raylet, with its temporary files below `folder`, and wait until it has joined the cluster."""

        def has_joined() -> bool:
            if self._process is None or self._process.poll() is not None:  # `ray start` gives up after 30 s on a busy machine
                self._process = self._start(cluster, folder)
            return bool(cluster.has(self.address))

        wait_until(has_joined, f"node {self.address} to join", JOIN_SECONDS)

    def kill(self) -> None:
        """Kill all its processes at once, by killing the first process of its namespace."""
        assert self._process is not None, "the node has not joined a cluster"
        self._process.kill()
        self._process.wait()
        self._process = None
        wait_until(lambda: not running(self.processes()), f"the end of the processes of node {self.address}", 30)

    def disconnect(self) -> None:
        """Cut the node off from the network; it still reaches its own address and the disk."""
        _ip(f"link set {self.namespace} down")

    def connect(self) -> None:
        _ip(f"link set {self.namespace} up")

    def suspend(self) -> None:
        """Suspend all its processes (SIGSTOP), repeating because one that still runs may have started another."""
        suspended: set[int] = set()
        while new := self.processes() - suspended:
            suspend(new)
            suspended |= new

    def resume(self) -> None:
        resume(self.processes())

    def _start(self, cluster: RayCluster, folder: Path) -> "subprocess.Popen[bytes]":
        inside = ["ip", "netns", "exec", self.namespace, *OWN_PROCESSES]
        temp = tempfile.mkdtemp(prefix="n", dir=folder)
        return cluster.launch(
            f"--address={cluster.gcs}", f"--node-ip-address={self.address}", f"--num-cpus={self.cpus}", f"--temp-dir={temp}",
            inside=inside, environment={"GLOO_SOCKET_IFNAME": "eth0"},
        )


@contextlib.contextmanager
def network(nodes: int, cpus: int) -> Iterator[list[Node]]:
    """Create a bridge and connect a namespace to it for each node, which has `cpus` for Ray. Needs root and iproute2."""
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
            node = Node(name, f"{NETWORK}.{number}", cpus)
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
