"""A Ray cluster of one machine that the embedded service starts, finds again after it was itself killed, and stops."""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tinyclip.index_database import VARIABLE as INDEX_DATABASE

from tinyclip_server.backends.ray_gateway import RayGateway
from tinyclip_server.local.machine import MARKER, free_port, marked_processes, short_path
from tinyclip_server.settings import Settings

logger = logging.getLogger(__name__)

SPARE_CPUS = 2
"""CPUs that Ray counts beyond the machine's: a deployment must be able to start while a job uses every core."""
LONGEST_SESSION_PATH = 68
"""Bytes that Ray appends to its folder for a unix socket, whose whole path has room for 107."""
LONGEST_PROXY_PATH = len("/" + 56 * "n" + "/admin.sock")
"""The same for Serve's proxy, which puts the node's id below its folder and wants a whole path of 97 at most."""
DASHBOARD_PORT = 8265
"""Ray's usual one; another if it is taken."""
START_SECONDS = 240.0
STOP_SECONDS = 30.0


class RayDidNotStart(Exception):
    """The message has what Ray said."""


@dataclass(frozen=True)
class Cluster:
    """A started cluster, as remembered in `ray.json`."""

    pid: int
    """Of `ray start`, which leads a process group of its own."""
    address: str
    serve_port: int


class LocalRay:
    """The cluster of one data directory. Every process of it inherits a marker, so that stopping reaches all and only them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._marker = str(settings.data_dir)
        self._file = settings.data_dir / "ray.json"
        self._log = settings.data_dir / "logs" / "ray.log"
        self._folder = short_path(settings.data_dir / "ray", room=107 - LONGEST_SESSION_PATH)
        self._proxy_folder = short_path(self._folder / "haproxy", room=97 - LONGEST_PROXY_PATH)
        self._process: subprocess.Popen[bytes] | None = None
        self.token_path = settings.data_dir / "ray-token"
        self.address = ""

    async def find(self) -> bool:
        """Whether a cluster that an earlier server left running still answers and serves at our port; it is ours again."""
        try:
            cluster = Cluster(**json.loads(self._file.read_text()))
        except (OSError, ValueError, TypeError):
            return False
        ours = cluster.pid in marked_processes(self._marker) and cluster.serve_port == self._settings.serve_port
        if not ours or not await self._answers(cluster.address):
            return False
        self.address = cluster.address
        return True

    async def clear(self) -> None:
        """End what is left of an earlier cluster, and choose where the next one answers."""
        await self._end_marked()
        self.address = f"http://127.0.0.1:{free_port(DASHBOARD_PORT)}"

    def settings(self) -> dict[str, object]:
        """What the rest of the service has to know; call it once `find` or `clear` chose the address."""
        # This cluster is ours alone and close by: an attempt that it does not know will not turn up later.
        return {"ray_address": self.address, "ray_token_path": self.token_path, "unknown_grace_seconds": 5.0}

    async def start(self) -> None:
        """Start the head and wait until it answers; leftovers of a dead one go first. Raises RayDidNotStart."""
        await self._end_marked()
        process = self._launch()
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await self._answers(self.address):
                    if process.poll() is not None:
                        raise RayDidNotStart(f"ray start ended with code {process.returncode}:\n{self._last_words()}")
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise RayDidNotStart(f"Ray does not answer after {START_SECONDS:g} s:\n{self._last_words()}") from None

    def runs(self) -> bool:
        """Whether the head's process is there."""
        if self._process is not None:
            return self._process.poll() is None
        return self._head() in marked_processes(self._marker)

    async def stop(self) -> None:
        """End the cluster: politely, then not."""
        if self.runs():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._head(), signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    while self.runs():  # noqa: ASYNC110 - another process tells nobody
                        await asyncio.sleep(0.1)
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
        await self._end_marked()
        self._file.unlink(missing_ok=True)
        for folder in (self._folder, self._proxy_folder):
            if not folder.is_relative_to(self._settings.data_dir):
                shutil.rmtree(folder, ignore_errors=True)

    def _launch(self) -> subprocess.Popen[bytes]:
        self._write_token()
        for folder in (self._folder, self._proxy_folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, mode=0o700)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                self._command(), env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        cluster = Cluster(pid=self._process.pid, address=self.address, serve_port=self._settings.serve_port)
        self._file.write_text(json.dumps(asdict(cluster)))
        return self._process

    def _head(self) -> int:
        if self._process is not None:
            return self._process.pid
        try:
            return Cluster(**json.loads(self._file.read_text())).pid
        except (OSError, ValueError, TypeError):
            return -1

    def _command(self) -> list[str]:
        ray = Path(sys.executable).with_name("ray")
        cpus = (os.cpu_count() or 1) + SPARE_CPUS
        return [
            str(ray), "start", "--head", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1",
            f"--port={free_port()}", "--dashboard-host=127.0.0.1", f"--dashboard-port={self.address.rsplit(':', 1)[1]}",
            f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}",
            f"--num-cpus={cpus}", f"--object-store-memory={self._settings.ray_object_store_bytes}",
            f"--temp-dir={self._folder}",
        ]

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        haproxy = self._proxy_folder
        index_database = self._settings.index_database_url
        return inherited | ({INDEX_DATABASE: index_database} if index_database else {}) | {
            MARKER: self._marker,
            "TINYCLIP_ENGINE_CACHE": str(self._settings.data_dir / "engines"),  # all that we write is below it
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_path),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
            "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
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

    async def _end_marked(self) -> None:
        """SIGKILL whatever still carries our marker; killing may orphan others that do, so until there are none."""
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
        if not self.token_path.exists():
            descriptor = os.open(self.token_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-15:])
