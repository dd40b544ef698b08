"""A control plane without a cluster, whose database is filled with what a browser has to withstand."""

import asyncio
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from sqlalchemy import insert
from tinyclip.schemas import JobState, StageState
from tinyclip_server.database.engine import Database, now
from tinyclip_server.database.migrate import upgrade
from tinyclip_server.database.tables import EventRow, JobLabelRow, JobRow, LogLineRow, MetricPointRow, StageRow
from tinyclip_server.http.callers import DEFAULT_PROJECT

from tests.console.searches import SEARCH, search_rows
from tests.ports import free_ports
from tests.server.documents import STUDENT

JOBS = 10_000
HOSTILE = '<img src=x onerror="document.title=\'owned\'">'
RIGHT_TO_LEFT = "exe\u202egnp.sraey"
LONG = "x" * 10_000
HOSTILE_JOB, CURVES_JOB, TRIAL_JOB = "job_hostile", "job_curves", "job_00002"
START_SECONDS = 60
FAKE_PLANNER = Path(__file__).parents[1] / "server" / "fake_planner.py"

SPEC: dict[str, Any] = {
    "spec_version": 1, "name": "emoji", "teacher": {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"},
    "data": {"train": {"shards": "/data/{0..9}.tar"}},
    "stages": [{"name": "half", "student": {"image": {"layers": 6}}, "train": {"steps": 1000}}],
}


class Records:
    """The server, for the duration of a `with` block."""

    def __init__(self, folder: Path, auth: str = "none", jobs: int = JOBS) -> None:
        self.folder, self._auth, self._jobs = folder, auth, jobs
        self._port, serve_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self._port}"
        self._command = [
            str(Path(sys.executable).parent / "tinyclip-server"), "up", "--data-dir", str(folder), "--port", str(self._port),
            "--serve-port", str(serve_port),
        ]
        self._database = f"sqlite+aiosqlite:///{folder / 'tinyclip.db'}"

    def __enter__(self) -> Self:
        with ThreadPoolExecutor(1) as thread:  # this one may run Playwright's event loop
            thread.submit(asyncio.run, self._fill()).result()
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def start(self) -> None:
        environment = {
            "TINYCLIP_AUTH": self._auth, "TINYCLIP_DATA_ROOTS": '["/data"]' if self._auth == "tokens" else "[]",
            "TINYCLIP_RAY_ADDRESS": "http://127.0.0.1:1",  # nothing answers there
            "TINYCLIP_PLANNER_COMMAND": json.dumps([sys.executable, str(FAKE_PLANNER)]),  # needs no engine
            "FAKE_PLANNER_STUDENT": json.dumps(STUDENT),
        }
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | environment
            )
        end = time.monotonic() + START_SECONDS
        while not self._is_live():
            assert self._process.poll() is None, (self.folder / "server.log").read_text()[-3000:]
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def token(self, scope: str) -> str:
        """Create a token as an administrator does, whose own token an operator has created."""
        authorization = {"Authorization": f"Bearer {self._admin_token}"}
        body = {"name": scope, "scopes": [scope]}
        created = httpx.post(f"{self.url}/v1/tokens", json=body, headers=authorization)
        assert created.is_success, created.text
        return str(created.json()["token"])

    @cached_property
    def _admin_token(self) -> str:
        command = [str(Path(sys.executable).parent / "tinyclip-server"), "create-token", "--data-dir", str(self.folder)]
        ran = subprocess.run([*command, "--scope", "admin"], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return next(word for word in ran.stdout.split() if word.startswith("tc_"))

    def _is_live(self) -> bool:
        try:
            return httpx.get(f"{self.url}/livez", timeout=1).is_success
        except httpx.HTTPError:
            return False

    async def _fill(self) -> None:
        await upgrade(self._database)
        db = Database(self._database)
        async with db.write() as session:
            for table, rows in _rows(self._jobs):
                await session.execute(insert(table), rows)
        await db.close()


def _rows(jobs_count: int) -> list[tuple[type[Any], list[dict[str, Any]]]]:
    hostile = _job(HOSTILE_JOB, 0, JobState.FAILED, name="hostile", labels={HOSTILE: RIGHT_TO_LEFT, "long": LONG[:1000]})
    message = f"{HOSTILE} {RIGHT_TO_LEFT} {LONG}"
    hostile["error"] = {"code": "no_data", "message": message, "stage": 0, "attempt": 1, "retryable": False}
    states = [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED]
    jobs = [
        hostile,
        _job(CURVES_JOB, 1, JobState.SUCCEEDED, name="curves"),
        *(_job(f"job_{number:05}", number, states[number % 3], name=f"sweep-{number % 50}") for number in range(2, jobs_count)),
    ]
    stages = [
        {"job_id": job["id"], "index": 0, "name": "half", "inherit": "manual", "steps": 1000, "state": StageState.SUCCEEDED,
         "student": None, "metrics": {}, "evaluation": {}}
        for job in jobs
    ]  # fmt: skip
    at = now()
    texts = [HOSTILE, RIGHT_TO_LEFT, LONG, *(f"step {step} loss {1 / step:.4f}" for step in range(1, 2000))]
    lines = [
        {"job_id": HOSTILE_JOB, "seq": number, "attempt": 1, "level": "info", "source": "worker", "message": text,
         "created_at": at}
        for number, text in enumerate(texts, 1)
    ]  # fmt: skip
    events = [
        {"job_id": HOSTILE_JOB, "seq": number, "type": "job.failed", "attempt": 1, "stage": None, "message": text, "data": {},
         "created_at": at}
        for number, text in enumerate(texts[:3], 1)
    ]  # fmt: skip
    points = [
        {"job_id": CURVES_JOB, "name": name, "stage": 0, "step": step, "value": value / step}
        for name, value in (("loss", 10.0), ("lr", 1e-3)) for step in range(1, 5001)
    ]  # fmt: skip
    for number, point in enumerate(points, 1):
        point["seq"] = number
    labels = [{"job_id": HOSTILE_JOB, "key": key, "value": value} for key, value in hostile["labels"].items()]
    return [
        (JobRow, jobs), (StageRow, stages), (LogLineRow, lines), (EventRow, events), (MetricPointRow, points),
        (JobLabelRow, labels), *search_rows(DEFAULT_PROJECT, SPEC, HOSTILE, at, TRIAL_JOB),
    ]  # fmt: skip


def _job(id: str, age: int, state: JobState, *, name: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    at = now() - timedelta(minutes=age)
    return {
        "id": id, "project": DEFAULT_PROJECT, "name": name, "labels": labels or {}, "spec": SPEC, "resolved_spec": SPEC,
        "state": state, "progress": {"stage": 0, "stages": 1, "step": 1000, "steps": 1000, "fraction": 1.0}, "model_name": name,
        "model_version": None, "attempt": 1, "created_at": at, "started_at": at, "finished_at": at, "error": None,
        "last_event": 3 if id == HOSTILE_JOB else 0, "last_log": 2002 if id == HOSTILE_JOB else 0,
        "last_metric": 10_000 if id == CURVES_JOB else 0, "search_id": SEARCH if id == TRIAL_JOB else None,
        "trial": 0 if id == TRIAL_JOB else None,
    }  # fmt: skip
