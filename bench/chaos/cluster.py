"""A Ray cluster that runs independently of the control planes, as in production."""

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
from tinyclip_server.local.machine import MARKER

from bench.chaos.machine import kill_all, wait_until
from tests.ports import free_ports

RAY = Path(sys.executable).with_name("ray")


class RayCluster:
    """A Ray head at `address`, which nodes can join. All its processes have the marker in their environment."""

    def __init__(
        self, folder: Path, *, address: str = "127.0.0.1", cpus: int = 8, head_environment: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None, inside: Sequence[str] = (),
    ) -> None:
        """Prepare a cluster, not started. `environment` is for the head and all nodes, `inside` as for `launch`, for the head."""
        self.folder, self._address, self._cpus = folder, address, cpus
        self._environment, self._head_environment = dict(environment or {}), head_environment
        self._inside = inside
        self.marker = str(folder)
        folder.mkdir()
        self.token = folder / "token"
        self.token.write_text(secrets.token_hex(32))
        self._port, self._dashboard, self._agent, self._client = free_ports(4)
        self.url = f"http://{address}:{self._dashboard}"

    def start(self) -> None:
        """Start the head, on the same ports each time, and wait until it answers."""
        self._process = self.launch(
            "--head", f"--node-ip-address={self._address}", f"--port={self._port}", f"--num-cpus={self._cpus}",
            f"--dashboard-host={self._address}", f"--dashboard-port={self._dashboard}",
            f"--dashboard-agent-listen-port={self._agent}", f"--ray-client-server-port={self._client}",
            f"--temp-dir={self.folder}", inside=self._inside, environment=self._head_environment,
        )
        wait_until(lambda: self.answers() or self._process.poll() is not None, "an answer of the Ray head")
        if self._process.poll() is not None:
            raise RuntimeError(f"ray start exited with status {self._process.returncode}; see {self.folder / 'ray.log'}")

    def launch(
        self, *arguments: str, inside: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Run `ray start` with these arguments. `inside` is a command that runs it, such as `ip netns exec NAME`."""
        settings = {
            MARKER: self.marker, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
        }
        command = [*inside, str(RAY), "start", "--block", f"--object-store-memory={128 << 20}", *arguments]
        with open(self.folder / "ray.log", "ab") as log:
            return subprocess.Popen(
                command, env={**os.environ, **settings, **self._environment, **(environment or {})}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )

    @property
    def gcs(self) -> str:
        """Return the address that nodes join."""
        return f"{self._address}:{self._port}"

    def answers(self) -> bool:
        try:
            return self._get("/api/version").is_success
        except httpx.HTTPError:
            return False

    def _get(self, path: str) -> httpx.Response:
        """Send a request to the dashboard. Raises `httpx.HTTPError`."""
        authorization = {"Authorization": f"Bearer {self.token.read_text()}"}
        return httpx.get(self.url + path, headers=authorization, timeout=5.0, trust_env=False)

    def alive(self) -> set[str]:
        """Return the addresses of the nodes that are alive for the head. Raises `httpx.HTTPError`."""
        answer = self._get("/nodes?view=summary")
        answer.raise_for_status()
        nodes = answer.json()["data"]["summary"]
        return {node.get("ip", "") for node in nodes if node["raylet"].get("state") == "ALIVE"}  # a new one has no address yet

    def has(self, address: str) -> bool | None:
        """Return whether a node is alive for the head; None if the head does not answer."""
        try:
            return address in self.alive()
        except httpx.HTTPError:
            return None

    def wait_for_end(self) -> None:
        """Wait until all of a killed head has ended: its dashboard survives it by seconds, and would answer for the next one."""
        wait_until(lambda: self._process.poll() is not None and not self.answers(), "the end of the Ray head")

    def wait_for_loss(self, address: str) -> None:
        """Wait until the head has noticed the loss of a node."""
        wait_until(lambda: self.has(address) is False, f"the head to notice the loss of node {address}", every=0.5)

    def end(self) -> None:
        kill_all(self.marker)
