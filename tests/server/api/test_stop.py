"""Graceful shutdown of a real control plane: responses end, leases are released, and it exits with 0."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from tinyclip_server.local.machine import free_port

from tests.server.documents import STUDENT, spec
from tests.server.fake_ray import fake_ray
from tests.server.service import FAKE_PLANNER

START_SECONDS = 60.0
STOP_SECONDS = 12.0
"""Time for draining requests and releasing leases on slow cores."""


@contextmanager
def control_plane(folder: Path, ray_address: str) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """Start a server with the cluster at an address, and yield its process and URL once it is ready."""
    port = free_port()
    given = {
        "DATA_DIR": str(folder), "RAY_ADDRESS": ray_address, "PORT": str(port), "PLANNER_COMMAND": json.dumps(FAKE_PLANNER),
        "TICK_SECONDS": "0.1", "LEASE_SECONDS": "600", "LOG_FORMAT": "json",
    }
    environment = os.environ | {f"TINYCLIP_{name}": value for name, value in given.items()}
    environment["FAKE_PLANNER_STUDENT"] = json.dumps(STUDENT)
    command = [str(Path(sys.executable).with_name("tinyclip-server")), "up"]
    log = folder / "output"
    with log.open("wb") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while "ready\n" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def read_all(lines: Iterator[str], into: list[str], ends: list[float]) -> None:
    into.extend(lines)
    ends.append(time.monotonic())


def lease_of(folder: Path, job: str) -> tuple[str, str, str]:
    engine = sa.create_engine(f"sqlite:///{folder / 'tinyclip.db'}")
    try:
        with engine.connect() as connection:
            query = sa.text("SELECT lease_owner, lease_until, state FROM jobs WHERE id = :job")
            owner, until, state = connection.execute(query, {"job": job}).one()
            return owner, until, state
    finally:
        engine.dispose()


@pytest.mark.timeout(150)
def test_sigterm_ends_streams_releases_leases_and_exits_with_0(tmp_path: Path) -> None:
    with fake_ray() as ray, control_plane(tmp_path, ray.address) as (process, url), closing(httpx.Client(base_url=url)) as http:
        job = http.post("/v1/jobs", json=spec(), timeout=30).json()["id"]
        deadline = time.monotonic() + START_SECONDS
        while '"attempt.submitted"' not in http.get(f"/v1/jobs/{job}/events").text:  # the last change of the job
            assert time.monotonic() < deadline, (tmp_path / "output").read_text()
            time.sleep(0.05)
        assert (list(ray.jobs), lease_of(tmp_path, job)[0] != "") == ([f"tc-{job}-a1"], True)
        etag = http.get(f"/v1/jobs/{job}").headers["etag"]
        streamed: list[str] = []
        polled: list[httpx.Response] = []
        ends: list[float] = []

        def poll() -> None:
            headers = {"If-None-Match": etag}
            polled.append(httpx.get(f"{url}/v1/jobs/{job}", params={"wait": 60}, headers=headers, timeout=90))

        with http.stream("GET", f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"}, timeout=90) as stream:
            threads = [
                threading.Thread(target=read_all, args=(stream.iter_lines(), streamed, ends)), threading.Thread(target=poll),
            ]
            for thread in threads:
                thread.start()
            time.sleep(0.5)
            stopped_at = time.monotonic()
            process.send_signal(signal.SIGTERM)
            code = process.wait(STOP_SECONDS + 30)
            took = time.monotonic() - stopped_at
            for thread in threads:
                thread.join(30)

        owner, until, state = lease_of(tmp_path, job)
        log = (tmp_path / "output").read_text()
        assert (code, took < STOP_SECONDS) == (0, True), log
        assert any("job.created" in line for line in streamed)
        assert ends, "the stream was cut off"
        assert [response.status_code for response in polled] == [304]
        assert (owner, until <= str(datetime.now(UTC)), state) == ("", True, "starting")
