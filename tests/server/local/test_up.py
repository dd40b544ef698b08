"""`tinyclip-server up` with a real local Ray: a cluster is adopted after a kill, and stopped completely."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tinyclip_server.local.machine import free_port, marked_processes

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the cluster's processes through /proc"),
    pytest.mark.ray,
    pytest.mark.timeout(600),
]
START_SECONDS = 280


@contextmanager
def server(data_dir: Path, port: int, serve_port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start the service in its own process and wait until it is ready; terminate it if the test fails."""
    command = [str(Path(sys.executable).with_name("tinyclip-server")), "up", "--data-dir", str(data_dir)]
    command += ["--port", str(port), "--serve-port", str(serve_port)]
    output = data_dir.parent / f"output-{time.monotonic_ns()}"
    with output.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not output.read_text().endswith("ready\n"):
                assert process.poll() is None, output.read_text()
                assert time.monotonic() < deadline, output.read_text()
                time.sleep(0.1)
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def test_the_service_comes_up_survives_a_kill_and_leaves_nothing(tmp_path: Path) -> None:
    data_dir, port, serve_port = tmp_path / "data", free_port(), free_port()
    url = f"http://127.0.0.1:{port}"

    with server(data_dir, port, serve_port) as first:
        assert httpx.get(f"{url}/readyz", timeout=30).status_code == 200
        cluster = json.loads((data_dir / "ray.json").read_text())
        assert httpx.get(f"{cluster['address']}/api/jobs/", timeout=30).status_code == 401
        first.kill()
        first.wait()
    assert cluster["pid"] in marked_processes(str(data_dir))

    with server(data_dir, port, serve_port) as second:
        assert json.loads((data_dir / "ray.json").read_text()) == cluster
        assert httpx.get(f"{url}/v1/jobs", timeout=30).json()["items"] == []
        os.kill(second.pid, signal.SIGINT)
        assert second.wait(START_SECONDS) == 0

    assert marked_processes(str(data_dir)) == set()
    assert not (data_dir / "ray.json").exists()
