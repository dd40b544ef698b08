"""The real service in its own processes, and faults to inject."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tinyclip.cli
from tinyclip_server.local.machine import marked_processes

from tests.ports import free_ports

BIN = Path(sys.executable).parent
START_SECONDS, STOP_SECONDS = 180.0, 90.0


class CommandResult:
    """Output and exit status of a command."""

    def __init__(self, done: "subprocess.CompletedProcess[str]") -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr


class Service:
    """`tinyclip-server up`; everything it writes is below `folder`."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        """`environment` comes on top of this process's."""
        self.data = folder / "data"
        self._environment = os.environ | {"PYTHONUNBUFFERED": "1"} | dict(environment or {})
        self.artifacts = self.data / "artifacts"
        self._log = folder / "server.log"
        port, serve_port = free_ports(2)
        self.url = f"http://127.0.0.1:{port}"
        self._command = [
            str(BIN / "tinyclip-server"), "up", "--data-dir", str(self.data),
            "--port", str(port), "--serve-port", str(serve_port),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the service and wait until it prints `ready`."""
        self.launch()
        wait_for(lambda: self.is_ready() or not self.runs(), START_SECONDS, "ready")
        assert self.runs(), self._output()

    def migrate(self) -> None:
        """Migrate the database, which `up` does not do for one that others may use."""
        command = [str(BIN / "tinyclip-server"), "migrate", "--data-dir", str(self.data)]
        subprocess.run(command, check=True, env=self._environment, capture_output=True)

    def launch(self) -> None:
        """Start the service without waiting."""
        self._output_before = self._log.stat().st_size if self._log.exists() else 0
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=self._environment,
            )

    def start_beside(self) -> CommandResult:
        """Try to start a second service on the same data, which is refused."""
        command = subprocess.run(
            self._command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=self._environment, timeout=START_SECONDS
        )
        return CommandResult(command)

    @property
    def pid(self) -> int:
        """The id of the control plane's process."""
        return self._started().pid

    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def is_ready(self) -> bool:
        """Return whether it has printed `ready` since the last start."""
        return "\nready\n" in self._output()

    def stop(self) -> int:
        """Stop the service; returns its exit status."""
        process = self._started()
        process.send_signal(signal.SIGINT)
        return process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """Kill the control plane alone (SIGKILL); the processes that it started survive."""
        process = self._started()
        process.kill()
        process.wait()

    def suspend(self) -> None:
        """Suspend the control plane (SIGSTOP): it keeps its connections and its leases, and answers nothing."""
        self._started().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume the suspended control plane (SIGCONT)."""
        self._started().send_signal(signal.SIGCONT)

    def kill_training_worker(self) -> None:
        """Kill a training process (SIGKILL)."""
        os.kill(self.training_workers()[0], signal.SIGKILL)

    def training_workers(self) -> list[int]:
        """Return the ids of the training processes."""
        return [pid for pid in self.processes() if _title(pid).startswith("ray::RayTrainWorker")]

    def end_everything(self) -> None:
        """Kill every process of the service that is left."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def processes(self) -> set[int]:
        """Return the ids of the cluster's processes that are still running."""
        return marked_processes(str(self.data))

    def cluster(self) -> dict[str, Any]:
        """Return what the service records about its cluster: address, process and CPUs for trainings."""
        found: dict[str, Any] = json.loads((self.data / "ray.json").read_text())
        return found

    def client(self, *arguments: str | Path, timeout: float = 900.0) -> CommandResult:
        """Run `tinyclip-client` against the service."""
        command = [str(BIN / "tinyclip-client"), "--url", self.url, *map(str, arguments)]
        return CommandResult(subprocess.run(command, capture_output=True, text=True, timeout=timeout))

    def client_here(self, *arguments: str | Path) -> CommandResult:
        """Run `tinyclip-client` in this process: for many runs, each of which would start Python for a second."""
        command, out, err = ["tinyclip-client", "--url", self.url, *map(str, arguments)], io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.setattr(sys, "argv", command)
            with pytest.raises(SystemExit) as exit:
                tinyclip.cli.main()
        return CommandResult(subprocess.CompletedProcess(command, int(exit.value.code or 0), out.getvalue(), err.getvalue()))

    def _started(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "not started"
        return self._process

    def _output(self) -> str:
        return self._log.read_bytes()[self._output_before :].decode(errors="replace")


def wait_for(true: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until a condition holds; fail the test after `seconds`."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.01)


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
