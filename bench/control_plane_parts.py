"""Testbed of `control_plane.py`: a temporary PostgreSQL, a fake Ray, the server, the bare one, and many jobs."""

import contextlib
import getpass
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import String, bindparam, cast, func, literal, select, true
from sqlalchemy.ext.asyncio import create_async_engine
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import EventRow, JobLabelRow, JobRow, StageRow
from tinyclip_server.local.machine import free_port

from tests.server.documents import STUDENT
from tests.server.fake_ray import FakeRay

ROOT = Path(__file__).parent.parent
FAKE_PLANNER = [sys.executable, str(ROOT / "tests/server/fake_planner.py")]
START_SECONDS = 120


@dataclass(frozen=True)
class Testbed:
    """Addresses and process ids of what is measured."""

    server: str
    bare: str
    database: str
    artifacts: Path
    processes: dict[str, int]
    """Process ids of the server and the bare one, by URL."""

    def cpu_seconds(self, url: str) -> float:
        """Return the CPU time of one of the two so far, without its children such as the planner."""
        fields = Path(f"/proc/{self.processes[url]}/stat").read_text().rpartition(")")[2].split()
        return sum(int(ticks) for ticks in fields[11:13]) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def start_testbed(folder: Path) -> Iterator[Testbed]:
    """Start everything; stop and remove it on exit."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(postgres())
        ray = FakeRay()
        threading.Thread(target=ray.serve_forever, daemon=True).start()
        stack.callback(ray.shutdown)
        port, bare = free_port(), free_port()
        environment = {
            **os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT / "bench")]),
            "TINYCLIP_DATABASE_URL": database, "TINYCLIP_RAY_ADDRESS": ray.address, "TINYCLIP_DATA_DIR": str(folder),
            "TINYCLIP_PLANNER_COMMAND": json.dumps(FAKE_PLANNER), "TINYCLIP_MAX_RUNNING_JOBS": "4",
            "TINYCLIP_CONFIG": os.devnull, "FAKE_PLANNER_STUDENT": json.dumps(STUDENT), "FAKE_PLANNER_DIR": str(folder),
            "BARE_DATABASE_URL": database.replace("postgresql://", "postgresql+asyncpg://"),
        }
        server = [sys.executable, "-c", "from tinyclip_server.cli import main; main()"]
        subprocess.run([*server, "migrate"], env=environment, check=True, stdout=subprocess.DEVNULL)
        uvicorn = [sys.executable, "-m", "uvicorn", "--no-access-log", "--log-level=warning", f"--port={bare}", "bare_insert:app"]
        log = stack.enter_context((folder / "output.log").open("ab"))
        processes: dict[str, int] = {}
        for listens_at, command in ((port, [*server, "up", "--port", str(port)]), (bare, uvicorn)):
            process = stack.enter_context(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            stack.callback(process.terminate)
            processes[f"http://127.0.0.1:{listens_at}"] = process.pid
        server_url, bare_url = processes
        found = Testbed(server_url, bare_url, database, folder / "artifacts", processes)
        for url in processes:
            _wait_for(f"{url}/livez")
        yield found


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Run a temporary PostgreSQL with default settings, as another user if this one is root; yield a database's URL."""
    programs = shutil.which("initdb") or str(max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default="initdb"))
    bin_folder, port, password = Path(programs).parent, free_port(), secrets.token_hex(16)
    root = getpass.getuser() == "root"
    as_user = ["runuser", "-u", "postgres", "--"] if root else []
    home = Path(tempfile.mkdtemp(prefix="tinyclip-bench-"))
    (home / "password").write_text(password)
    if root:
        subprocess.run(["chown", "-R", "postgres", str(home)], check=True)

    def run(program: str, *arguments: str) -> None:
        command = [*as_user, str(bin_folder / program), "-D", str(home / "data"), *arguments]
        subprocess.run(command, cwd=home, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    run("initdb", "-U", "tinyclip", "-A", "scram-sha-256", f"--pwfile={home / 'password'}")
    run("pg_ctl", "-l", str(home / "log"), "-w", "-o", f"-p {port} -c listen_addresses=127.0.0.1 -k '{home}'", "start")
    try:
        yield f"postgresql://tinyclip:{password}@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(home, ignore_errors=True)


async def multiply(database: str, job: str, count: int) -> None:
    """Insert `count` ended copies of a job, created a second apart, with its stages, labels and events."""
    engine = create_async_engine(database.replace("postgresql://", "postgresql+asyncpg://"))
    numbers = select(func.generate_series(1, count).label("number")).subquery()
    number = numbers.c.number
    copy_id = literal("job_") + func.lpad(cast(number, String), 16, "0")
    begun = bindparam("begun", now() - timedelta(seconds=count)) + number * timedelta(seconds=1)
    async with engine.begin() as connection:
        for row, own in (
            (JobRow, {
                "id": copy_id, "created_at": begun, "finished_at": begun, "state": literal("succeeded"), "model_version": number,
            }),
            (StageRow, {"job_id": copy_id}), (JobLabelRow, {"job_id": copy_id}), (EventRow, {"job_id": copy_id}),
        ):
            columns = [own.get(column.key, column).label(column.key) for column in row.__table__.columns]
            of_job = row.id == job if row is JobRow else row.job_id == job
            query = select(*columns).select_from(row.__table__.join(numbers, true())).where(of_job)
            await connection.execute(row.__table__.insert().from_select([column.key for column in columns], query))
    async with engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).exec_driver_sql("ANALYZE")
    await engine.dispose()
