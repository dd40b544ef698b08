"""The embedded service in a separate process, for the duration of a `with` block."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tinyclip_server.local.machine import free_ports

START_SECONDS, STOP_SECONDS = 180, 90
BIN = Path(sys.executable).parent


class ServiceFailed(Exception):
    """The service did not start, or did not stop cleanly; its log has the reason."""


class Service:
    """`tinyclip-server up` on free ports, with everything it writes below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.log = folder / "output.log"
        self._port, serve_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self._port}"
        self._command = [
            str(BIN / "tinyclip-server"), "up", "--data-dir", str(folder / "data"),
            "--port", str(self._port), "--serve-port", str(serve_port),
        ]

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            # In a session of its own, so that Ctrl-C reaches only this process, which then stops the service cleanly.
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        status = self._stop()
        if error is None and status != 0:
            raise ServiceFailed(f"the service exited with status {status}")

    def wait(self) -> None:
        """Wait until the service ends."""
        self._process.wait()

    def greeting(self) -> list[str]:
        """Return what the service printed until it was ready (the addresses); empty before."""
        lines = self.log.read_text(errors="replace").splitlines()
        return lines[: lines.index("ready")] if "ready" in lines else []

    def log_ends(self, lines: int = 25) -> str:
        """Return the last lines of its output and of its log."""
        logs = [log for log in (self.log, self._folder / "data" / "logs" / "server.log") if log.exists()]
        ends = ["\n".join(log.read_text(errors="replace").splitlines()[-lines:]) for log in logs]
        return "\n\n".join(f"The end of {log}:\n{end}" for log, end in zip(logs, ends, strict=True))

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + START_SECONDS
        while not self.greeting():
            if (status := self._process.poll()) is not None:
                raise ServiceFailed(f"the service exited with status {status} before it was ready")
            if time.monotonic() > end:
                raise ServiceFailed(f"the service was not ready after {START_SECONDS} s")
            time.sleep(0.2)

    def _stop(self) -> int:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(STOP_SECONDS)
        except BaseException:  # too slow, or a second Ctrl-C: kill it and all its processes
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise
