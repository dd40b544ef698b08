"""The console's source: its types from the API, its unit tests, and the built files, which are what the source makes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tinyclip_server.console.files import BUILT

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "console"
NEEDED = (20, 19)
HOW = "no Node 20.19 or newer with npm; on Debian: apt-get install nodejs npm"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def installed() -> None:
    """Install what package-lock.json names into console/node_modules, and generate the API's types."""
    if shutil.which("npm") is None or _node_version() < NEEDED:
        pytest.skip(HOW)
    lock, stamp = SOURCE / "package-lock.json", SOURCE / "node_modules" / ".package-lock.json"
    if not stamp.exists() or stamp.stat().st_mtime < lock.stat().st_mtime:
        ran = _run("npm", "ci", "--no-progress", check=False)
        if ran.returncode != 0 and "CI" not in os.environ:
            pytest.skip(f"npm ci failed: {ran.stderr[-300:]}")
        assert ran.returncode == 0, ran.stderr
        stamp.touch()
    document = _run(sys.executable, "openapi.py").stdout
    (SOURCE / "openapi.json").write_text(document)
    _run("npm", "run", "--silent", "types")


def test_the_source_fits_the_api(installed: None) -> None:
    """A field that the API no longer has is an error of the type check."""
    ran = _run("npm", "run", "--silent", "check", check=False)

    assert ran.returncode == 0, ran.stdout


def test_the_source_passes_eslint_and_prettier(installed: None) -> None:
    """They run if the sources differ from those that have passed them last."""
    ran = _run(sys.executable, "lint.py", check=False)

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_pure_functions(installed: None) -> None:
    ran = _run("npm", "run", "--silent", "test", check=False)

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_built_files_are_those_of_the_source(installed: None, tmp_path: Path) -> None:
    _run("npx", "vite", "build", "--logLevel", "warn", "--outDir", str(tmp_path), "--emptyOutDir")

    assert _content(tmp_path) == _content(BUILT), "run make console, and commit server/tinyclip_server/console/built"


def test_the_components_that_are_used_have_their_styles(installed: None) -> None:
    """`src/app/mantine.css` names them; Mantine's classes have the same names in scripts and styles."""
    known = _mantine_classes((SOURCE / "node_modules" / "@mantine" / "core" / "styles.css").read_text())
    used = known & _mantine_classes("".join(path.read_text() for path in BUILT.glob("assets/*.js")))

    assert len(used) > 100
    assert used - _mantine_classes("".join(path.read_text() for path in BUILT.glob("assets/*.css"))) == set()


def test_the_lock_file_names_no_download_address_and_every_package_has_a_digest() -> None:
    lock = json.loads((SOURCE / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}

    assert packages
    assert [name for name, package in packages.items() if "resolved" in package] == []
    assert [name for name, package in packages.items() if "integrity" not in package] == []


def _mantine_classes(text: str) -> set[str]:
    return set(re.findall(r"\bm_[0-9a-f]{6,8}\b", text))


def _content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _node_version() -> tuple[int, ...]:
    found = re.match(r"v(\d+)\.(\d+)", subprocess.run(["node", "--version"], capture_output=True, text=True).stdout)
    return tuple(map(int, found.groups())) if found else (0,)


def _run(*command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=SOURCE, check=check, capture_output=True, text=True)
