"""The servers that `serving.py` compares, each in its own processes, whose CPU time it reads."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from tinyclip import Client
from tinyclip.artifacts.paths import model_version
from tinyclip.schemas import DeploymentState
from tinyclip_server.local.machine import marked_processes
from tinyclip_workers.engines.calibration import CALIBRATION_FILE

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "examples" / "emoji"))

from service import Service, free_ports  # noqa: E402 -- the example's own way to run the embedded service

START_SECONDS = 240
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
QUERY_PROCESSES = ("ServeReplica", "haproxy", "ProxyActor", "HAProxyManager")
"""Names of the service's processes that a query passes through."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    pids: Callable[[], Iterable[int]]
    """Return the ids of the processes that currently do the work."""

    def cpu_seconds(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._processes())

    def resident_bytes(self) -> int:
        return sum(process.memory_info().rss for process in self._processes() if "haproxy" not in _command(process).lower())

    def _processes(self) -> list[psutil.Process]:
        return [psutil.Process(pid) for pid in self.pids()]


@contextmanager
def ours(folder: Path, model: Path, engine: str, *, versions: int = 1) -> Iterator[tuple[Server, Client]]:
    """Run `tinyclip-server up` with a deployment `bench` of the model in `model` (open_clip's layout)."""
    service = Service(folder)
    with service, Client(service.url) as client:
        for _ in range(versions):
            made = client.models.import_file(model, name="bench")
            kept = folder / "data" / "artifacts" / model_version(made.name, made.version)
            shutil.copy(model / CALIBRATION_FILE, kept)  # an import does not copy it
        client.deployments.put("bench", "bench@1", engine=engine)
        deployment = client.deployments.wait("bench", timeout=START_SECONDS)
        if deployment.state is not DeploymentState.READY:
            raise RuntimeError(f"the deployment is {deployment.state}: {deployment.message}")
        marker = str((folder / "data").resolve())
        yield Server(deployment.endpoint, lambda: [pid for pid in marked_processes(marker) if _answers_queries(pid)]), client


@contextmanager
def infinity(python: str, folder: Path) -> Iterator[Server]:
    """Run infinity_emb on the same weights in transformers' layout, from the environment of `python`."""
    port = free_ports(1)[0]
    binary = str(Path(python).with_name("infinity_emb"))
    options = ["--engine", "torch", "--device", "cpu", "--port", str(port), "--batch-size", "32", "--no-bettertransformer"]
    command = [binary, "v2", "--model-id", str(folder), "--served-model-name", "bench", *options]
    with _process(command, {}, f"http://127.0.0.1:{port}/health") as pid:
        yield Server(f"http://127.0.0.1:{port}", lambda: _process_tree(pid))


@contextmanager
def pipeline(python: str, folder: Path) -> Iterator[Server]:
    """Run Hugging Face's pipeline behind FastAPI."""
    port = free_ports(1)[0]
    command = [python, "-m", "uvicorn", "serving_pipeline:app", "--port", str(port), "--log-level", "warning"]
    with _process(command, {"FOLDER": str(folder)}, f"http://127.0.0.1:{port}/healthz") as pid:
        yield Server(f"http://127.0.0.1:{port}", lambda: _process_tree(pid))


@contextmanager
def _process(command: list[str], environment: dict[str, str], health: str) -> Iterator[int]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=HERE, env=os.environ | ONE_THREAD | environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            end = time.monotonic() + START_SECONDS
            while not _answers(health):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    output = log.read().decode(errors="replace")[-2000:]
                    raise RuntimeError(f"{' '.join(command)} does not answer at {health} (status {process.poll()}):\n{output}")
                time.sleep(0.5)
            yield process.pid
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _process_tree(pid: int) -> list[int]:
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def _answers_queries(pid: int) -> bool:
    return psutil.pid_exists(pid) and any(name in _command(psutil.Process(pid)) for name in QUERY_PROCESSES)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
