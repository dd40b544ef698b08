"""One distribution, three packages: a plain install is the light client and names the missing extra."""

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("tinyclip", "tinyclip_server", "tinyclip_workers")
HEAVY = ("torch", "ray", "fastapi", "sqlalchemy", "numpy", "PIL")


@dataclass
class Environment:
    """A virtual environment with nothing in it but `pip install .`."""

    folder: Path

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        path = self.folder / "bin" / command
        return subprocess.run([path, *arguments], capture_output=True, text=True, timeout=60, check=False, cwd=self.folder)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(out), str(ROOT))
    (built,) = out.glob("tinyclip-*.whl")
    return built


@pytest.fixture(scope="session")
def plain(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("plain") / "venv"
    # The pip at hand installs into it: a copy of pip is most of the time that making an environment takes.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    # Only what is imported is compiled, when it is.
    install = ("install", "--no-compile", "-c", str(ROOT / "constraints.txt"), str(wheel))
    pip(sys.executable, "--python", str(folder / "bin" / "python"), *install)
    return Environment(folder)


def test_the_wheel_holds_the_three_packages_their_types_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    folders = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert folders == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert {"tinyclip_server/migrations/env.py", "tinyclip_workers/serving/http/try_it.html"} <= set(names)
    assert any(name.endswith("LICENSE") for name in names)
    built = "tinyclip_server/console/built"
    assert {f"{built}/index.html", f"{built}/docs.html", f"{built}/redoc.html", f"{built}/licenses.md"} <= set(names)


def test_a_plain_install_gives_the_client_without_anything_heavy(plain: Environment) -> None:
    imported = plain.run("python", "-c", "import tinyclip, tinyclip.schemas, tinyclip.cli, sys; print(*sys.modules)")
    found = plain.run("python", "-c", f"import importlib.util as u; print([n for n in {HEAVY!r} if u.find_spec(n)])")

    assert imported.returncode == 0, imported.stderr
    assert not {name.partition(".")[0] for name in imported.stdout.split()} & set(HEAVY)
    assert found.stdout.strip() == "[]", found.stderr


def test_a_plain_install_runs_the_command_line(plain: Environment) -> None:
    helped = plain.run("tinyclip-client", "--help")

    assert helped.returncode == 0, helped.stderr
    assert "jobs" in helped.stdout


def test_the_server_command_without_its_extra_answers_with_the_install_command(plain: Environment) -> None:
    answer = plain.run("tinyclip-server", "up")

    assert answer.returncode != 0
    assert "pip install 'tinyclip[server]'" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_the_engine_without_its_extra_answers_with_the_install_command(plain: Environment) -> None:
    answer = plain.run("python", "-c", "import tinyclip_workers")

    assert answer.returncode != 0
    assert "pip install 'tinyclip[workers]'" in answer.stderr


def pip(python: str, *arguments: str) -> None:
    done = subprocess.run(
        [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments],
        capture_output=True, text=True, check=False, env=os.environ | {"PIP_NO_INPUT": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
