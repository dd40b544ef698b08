"""The Ray cluster on one machine that the embedded service starts, adopts after a crash of its own, and stops."""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tinyclip.index_database import VARIABLE as INDEX_DATABASE

from tinyclip_server.backends.ray_gateway import RayGateway
from tinyclip_server.deployments.serve_config import SERVING_CPU
from tinyclip_server.local.haproxy import write_start_script
from tinyclip_server.local.machine import MARKER, claim, free_port, free_ports, hold, listen, marked_processes, short_path
from tinyclip_server.settings import Settings

logger = logging.getLogger(__name__)

SPARE_SERVING_CPUS = 2
"""Serving CPUs beyond the machine's: a rolling update briefly doubles the replicas, which use little of what they reserve."""
LONGEST_SESSION_PATH = 68
"""Bytes that Ray appends to its folder for a unix socket, whose path may have 107."""
LONGEST_PROXY_PATH = len("/" + 56 * "n" + "/admin.sock")
"""The same for Serve's proxy, which adds the node's id to its folder and limits the path to 97."""
LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""With 0, `ray start` binds 127.0.0.1 on Linux too, as it does on macOS; else it takes the machine's address instead."""
START_SCRIPT = "start-haproxy"
DASHBOARD_PORT = 8265
"""Ray's default; another one is chosen if it is in use, or claimed by a service that starts at the same time."""
HELD_PORTS = ("RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT")
"""Ports of 127.0.0.1 that are held with the one of deployments until Serve's proxies bind them: at the first deployment, perhaps
days after the start. Ray's own are bound within seconds. By default the fallback is 8500 in all clusters, which share it."""
WORKER_NICENESS = "5"
"""Below other programs, but not by much: at Ray's 15 a worker gets a thirtieth of their share of a core and starts in minutes."""
START_SECONDS = 240.0
STOP_SECONDS = 30.0


class RayDidNotStart(Exception):
    """A failed start of Ray; the message includes Ray's output."""


@dataclass(frozen=True)
class Cluster:
    """A started cluster, as recorded in `ray.json`."""

    pid: int
    """Process id of `ray start`, which leads its own process group."""
    address: str
    serve_port: int
    cpus: int
    """CPUs for trainings. Replicas reserve another resource, so that they start while a training uses every core."""


class LocalRay:
    """The cluster of one data directory. All its processes inherit a marker, by which `stop` finds exactly them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._marker = str(settings.data_dir)
        self._file = settings.data_dir / "ray.json"
        self._log = settings.data_dir / "logs" / "ray.log"
        self._folder = short_path(settings.data_dir / "ray", max_bytes=107 - LONGEST_SESSION_PATH)
        self._proxy_folder = short_path(self._folder / "haproxy", max_bytes=97 - LONGEST_PROXY_PATH)
        self._process: subprocess.Popen[bytes] | None = None
        self._claim: socket.socket | None = None
        self.token_path = settings.data_dir / "ray-token"
        self.address = ""

    async def adopt(self) -> bool:
        """Adopt the cluster of an earlier server. Return False if none answers with the configured Serve port."""
        try:
            cluster = Cluster(**json.loads(self._file.read_text()))
        except (OSError, ValueError, TypeError):
            return False
        is_own = cluster.pid in marked_processes(self._marker) and cluster.serve_port == self._settings.serve_port
        if not is_own or not await self._answers(cluster.address):
            return False
        self.address = cluster.address
        return True

    async def clear(self) -> None:
        """Kill the remaining processes of an earlier cluster, and choose the address of the next one. Raises `PortTaken`."""
        await self._kill_marked()
        listen(self._settings.host, self._settings.serve_port, "--serve-port").close()
        self._claim = self._claim or claim(DASHBOARD_PORT)
        self.address = f"http://127.0.0.1:{free_port(DASHBOARD_PORT if self._claim else 0)}"

    def settings(self) -> dict[str, object]:
        """Return the settings of this cluster for the rest of the service. Call `adopt` or `clear` first."""
        # Only this service submits to the cluster, over loopback: an attempt that it does not know will not appear later.
        # Drivers reserve no CPUs, because the machine is one node and the plan gives all of its CPUs to the workers.
        own = {"ray_address": self.address, "ray_token_path": self.token_path, "cluster_name": self._name()}
        return own | {"unknown_grace_seconds": 5.0, "driver_cpus": None}

    async def start(self) -> None:
        """Kill what is left of an earlier head, start one, and wait until it answers. Raises `RayDidNotStart`, `PortTaken`."""
        await self._kill_marked()
        process = self._launch()
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await self._answers(self.address):
                    if process.poll() is not None:
                        raise RayDidNotStart(f"ray start exited with status {process.returncode}:\n{self._log_tail()}")
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise RayDidNotStart(f"Ray does not answer after {START_SECONDS:g} s:\n{self._log_tail()}") from None

    def _name(self) -> str:
        """Return the name of this data directory's clusters, chosen once: another one's may have the same address."""
        file = self._settings.data_dir / "cluster-name"
        if not file.exists():
            chosen = file.with_suffix(".new")
            chosen.write_text(f"embedded-{secrets.token_hex(8)}")
            chosen.replace(file)
        return file.read_text()

    def is_running(self) -> bool:
        """Return whether the head's process is running."""
        if self._process is not None:
            return self._process.poll() is None
        return self._head_pid() in marked_processes(self._marker)

    async def stop(self) -> None:
        """Stop the cluster with SIGTERM, then kill the processes that remain."""
        if self.is_running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._head_pid(), signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    while self.is_running():  # noqa: ASYNC110 - there is no event for the end of an adopted process
                        await asyncio.sleep(0.1)
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
        await self._kill_marked()
        if self._claim is not None:
            self._claim.close()
        self._file.unlink(missing_ok=True)
        for folder in (self._folder, self._proxy_folder):
            if not folder.is_relative_to(self._settings.data_dir):
                shutil.rmtree(folder, ignore_errors=True)

    def _launch(self) -> subprocess.Popen[bytes]:
        self._write_token()
        for folder in (self._folder, self._proxy_folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, mode=0o700)
        try:
            write_start_script(self._proxy_folder / START_SCRIPT)
        except FileNotFoundError as error:
            raise RayDidNotStart(str(error)) from error
        self._log.parent.mkdir(parents=True, exist_ok=True)
        settings = self._settings
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(open(self._log, "ab"))
            serve = stack.enter_context(hold(settings.host, settings.serve_port, "--serve-port"))
            held = {name: stack.enter_context(hold("127.0.0.1", free_port(), "a restart")) for name in HELD_PORTS}
            self._process = subprocess.Popen(
                self._command(),
                env=self._environment() | {name: str(each.getsockname()[1]) for name, each in held.items()},
                pass_fds=[each.fileno() for each in (serve, *held.values())],  # the head keeps them, which outlives this process
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        cluster = Cluster(self._process.pid, self.address, serve_port=settings.serve_port, cpus=settings.embedded_cpus)
        self._file.write_text(json.dumps(asdict(cluster)))
        return self._process

    def _head_pid(self) -> int:
        if self._process is not None:
            return self._process.pid
        try:
            return Cluster(**json.loads(self._file.read_text())).pid
        except (OSError, ValueError, TypeError):
            return -1

    def _command(self) -> list[str]:
        ray = Path(sys.executable).with_name("ray")
        cpus = self._settings.embedded_cpus
        serving = json.dumps({SERVING_CPU: cpus + SPARE_SERVING_CPUS})
        gcs, agent, client = free_ports(3)
        return [
            str(ray), "start", "--head", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1",
            f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={self.address.rsplit(':', 1)[1]}",
            f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}",
            f"--num-cpus={cpus}", f"--resources={serving}", f"--temp-dir={self._folder}",
            f"--object-store-memory={self._settings.ray_object_store_bytes}",
        ]

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        haproxy = self._proxy_folder
        index_database = self._settings.index_database_url
        return inherited | ({INDEX_DATABASE: index_database} if index_database else {}) | {
            MARKER: self._marker,
            "TINYCLIP_ENGINE_CACHE": str(self._settings.data_dir / "engines"),  # the service writes only below data_dir
            "TINYCLIP_DATA_CACHE": str(self._settings.data_dir / "data"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_path),
            "RAY_USAGE_STATS_ENABLED": "0",
            LOOPBACK_ONLY: "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process for each worker group; the only node is not preempted
            "RAY_worker_niceness": WORKER_NICENESS,
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
            "RAY_SERVE_HAPROXY_BINARY_PATH": str(haproxy / START_SCRIPT),
            "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",  # a client that sends nothing, or does not read
            "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
            "SERVE_SOCKET_REUSE_PORT_ENABLED": "1",  # HAProxy binds ports that `hold` keeps for it
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "stat.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        }

    async def _answers(self, address: str) -> bool:
        gateway = RayGateway(address, token_path=self.token_path, timeout_s=5.0)
        try:
            return await gateway.ready()
        finally:
            await gateway.close()

    async def _kill_marked(self) -> None:
        """Kill all processes with the marker; repeat, because a killed process may have started others meanwhile."""
        for _ in range(50):
            left = marked_processes(self._marker)
            if not left:
                break
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.1)
        if self._process is not None:
            self._process.poll()

    def _write_token(self) -> None:
        if not self.token_path.exists() or not self.token_path.read_text():  # empty after a kill, or a power failure
            chosen = self.token_path.with_name("ray-token.new")
            chosen.unlink(missing_ok=True)
            descriptor = os.open(chosen, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
            chosen.replace(self.token_path)

    def _log_tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-15:])
