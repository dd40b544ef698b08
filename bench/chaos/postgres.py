"""A temporary PostgreSQL: a cluster in a folder, on a free port of 127.0.0.1."""

import os
import pwd
import secrets
import shutil
import subprocess
from pathlib import Path

from tests.ports import free_ports


class Postgres:
    """An initialized cluster, not started. PostgreSQL refuses to run as root, so root runs it as another user."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._bin = folder, _programs()
        (self._port,) = free_ports(1)
        self._as_user: list[str] = []
        folder.mkdir(mode=0o755)
        password = secrets.token_hex(16)
        (folder / "password").write_text(password)
        if os.getuid() == 0:
            user = "postgres" if _is_user("postgres") else "nobody"
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
            self._as_user = ["runuser", "-u", user, "--"]
        self.url = f"postgresql://tinyclip:{password}@127.0.0.1:{self._port}/postgres"
        self._run("initdb", "-U", "tinyclip", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}")

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -k '{self._folder}'"
        self._run("pg_ctl", "-l", str(self._folder / "log"), "-w", "-o", options, "start")

    def stop(self) -> None:
        """Stop the server, aborting open transactions."""
        self._run("pg_ctl", "-m", "fast", "-w", "stop")

    def stop_if_running(self) -> None:
        if (self._folder / "data" / "postmaster.pid").exists():
            self.stop()

    def _run(self, program: str, *arguments: str) -> None:
        """Run a program with its output in a file, since the server would keep a pipe open. Raises `CalledProcessError`."""
        command = [*self._as_user, str(self._bin / program), "-D", str(self._folder / "data"), *arguments]
        with open(self._folder.parent / "postgres.log", "ab") as log:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True, cwd=self._folder)


def _programs() -> Path:
    """Return the folder of initdb and pg_ctl: on the PATH, or Debian's of the newest version."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if (place / "pg_ctl").exists():
            return place
    raise SystemExit("PostgreSQL is not installed; on Debian, as root: apt-get install postgresql")


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
