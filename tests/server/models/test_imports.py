"""`POST /v1/models/import`: a file becomes a version, or the request has no effect."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tinyclip.artifacts.paths import import_marker

from tests.server.service import FAKE_IMPORTER, Service, Start, on_both_databases

WEIGHTS = bytes(range(256)) * 100
BINARY = {"Content-Type": "application/octet-stream"}


async def send(service: Service, content: Any = WEIGHTS, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
    return await service.http.post("/v1/models/import", params=query, content=content, headers={**BINARY, **(headers or {})})


async def versions(service: Service, name: str) -> list[int]:
    response = await service.http.get(f"/v1/models/{name}")
    return response.json()["versions"] if response.status_code == 200 else []


def remains(service: Service) -> list[str]:
    """Return the uploads and markers that imports have left behind."""
    folders = [service.settings.data_dir / "imports", service.artifacts / "imports"]
    return [path.name for folder in folders if folder.is_dir() for path in folder.iterdir()]


@on_both_databases
class TestUpload:
    async def test_it_becomes_a_version_with_an_alias(self, service: Service) -> None:
        name = "tinyclip-vit-40m-32-text-19m"
        preset = "TinyCLIP-ViT-40M-32-Text-19M"
        response = await send(service, file="TinyCLIP-40M.pt", preset=preset, alias="best", quick_gelu=True)

        version = response.json()
        assert response.status_code == 201, version
        assert response.headers["location"] == f"/v1/models/{name}/versions/1"
        assert (version["name"], version["version"], version["aliases"], version["job"]) == (name, 1, ["best"], None)
        lineage = version["lineage"]["import"]
        options = lineage["options"]
        assert (lineage["file"], options["quick_gelu"], options["head_width"]) == ("TinyCLIP-40M.pt", True, None)
        file = await service.http.get(f"{response.headers['location']}/files/weights.safetensors")
        assert file.content == WEIGHTS
        assert remains(service) == []

    async def test_imports_and_jobs_share_the_version_numbers(self, service: Service) -> None:
        first, second = await send(service, name="emoji"), await send(service, name="emoji")
        job = await service.succeeded("emoji")

        assert [response.json()["version"] for response in (first, second)] == [1, 2]
        assert job["model"]["version"] == 3

    async def test_concurrent_imports_get_different_numbers(self, service: Service) -> None:
        responses = await asyncio.gather(*(send(service, name="emoji", content=WEIGHTS + bytes([n])) for n in range(4)))

        assert sorted(response.json()["version"] for response in responses) == [1, 2, 3, 4]
        assert await versions(service, "emoji") == [1, 2, 3, 4]

    async def test_a_repeated_request_returns_the_first_response(self, service: Service) -> None:
        key = {"Idempotency-Key": "abc"}
        first, repeated = await send(service, headers=key, name="emoji"), await send(service, headers=key, name="emoji")
        other = await send(service, b"other", headers=key, name="emoji")

        assert (repeated.status_code, repeated.json()) == (201, first.json())
        assert repeated.headers["location"] == first.headers["location"]
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
        assert await versions(service, "emoji") == [1]


class TestNames:
    @pytest.mark.parametrize(
        ("query", "name"),
        [
            ({"file": "My Model (2).pt"}, "my-model-2-"),
            ({"file": "epoch_3.safetensors", "preset": "ViT-B-32"}, "vit-b-32"),
            ({"name": "given", "preset": "ViT-B-32"}, "given"),
        ],
    )
    async def test_the_name_is_derived_from_preset_or_file(self, service: Service, query: dict[str, str], name: str) -> None:
        assert (await send(service, **query)).json()["name"] == name


class TestRefused:
    """A refused import has no effect and uses no version number."""

    @pytest.mark.parametrize(
        ("query", "pointer"),
        [
            ({"name": "No Good"}, "/name"), ({"alias": "3"}, "/alias"), ({"alias": "latest"}, "/alias"),
            ({"head_width": 0}, "/head_width"), ({"file": "a/b.pt"}, "/file"), ({"quick_gelu": "perhaps"}, "/quick_gelu"),
            ({"prest": "x"}, "/prest"), ({"file": "…"}, "/name"), ({"preset": "refused"}, "/file"),
        ],
    )  # fmt: skip
    async def test_an_invalid_field_is_named(self, service: Service, query: dict[str, Any], pointer: str) -> None:
        response = await send(service, **query)

        assert response.status_code == 422
        assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
        assert (await send(service, name="refused")).json()["version"] == 1
        assert remains(service) == []

    async def test_a_hostile_file(self, service: Service) -> None:
        response = await send(service, b"hostile", name="emoji")

        assert (response.status_code, response.json()["code"]) == (422, "import_refused")
        assert await versions(service, "emoji") == []

    async def test_an_empty_body(self, service: Service) -> None:
        assert (await send(service, b"")).json()["errors"][0]["pointer"] == "/file"

    @pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "text/plain", "application/x-www-form-urlencoded"])
    async def test_an_unsupported_media_type(self, service: Service, kind: str) -> None:
        response = await send(service, headers={"Content-Type": kind})

        assert (response.status_code, "application/octet-stream" in response.json()["detail"]) == (415, True)

    @pytest.mark.parametrize("announced", [True, False])
    async def test_a_file_that_is_too_large(self, start: Start, announced: bool) -> None:
        service = await start(max_import_bytes=10_000)

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(1000):
                yield bytes(1000)

        response = await send(service, bytes(10_001) if announced else endless())

        assert (response.status_code, response.json()["code"]) == (413, "too_large")
        assert remains(service) == []

    @pytest.mark.parametrize(("preset", "code"), [("dies", "import_died"), ("hangs", "import_timeout")])
    async def test_a_file_that_kills_or_blocks_its_process(self, start: Start, preset: str, code: str) -> None:
        service = await start(import_command=FAKE_IMPORTER, import_timeout_seconds=1.0)

        response = await send(service, preset=preset, name="emoji")

        assert (response.status_code, response.json()["code"]) == (422, code)
        assert (await send(service, name="emoji")).json()["version"] == 1

    async def test_a_full_disk(self, service: Service) -> None:
        response = await send(service, preset="full", name="emoji")

        assert (response.status_code, response.json()["code"]) == (507, "not_written")
        assert not (service.artifacts / "models/emoji/1").exists()
        assert (await send(service, name="emoji")).json()["version"] == 2


class TestSource:
    async def test_the_server_reads_it(self, start: Start, tmp_path: Path) -> None:
        service = await start(data_dir=tmp_path / "service")
        (tmp_path / "weights.pt").write_bytes(WEIGHTS)

        response = await service.http.post("/v1/models/import", json={"source": str(tmp_path / "weights.pt"), "alias": "best"})

        assert response.status_code == 201
        assert (response.json()["name"], response.json()["aliases"]) == ("weights", ["best"])

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({}, "/source"), ([], ""), ({"source": "/x", "quick_gelu": "perhaps"}, "/quick_gelu"),
            ({"source": "/x", "nme": "y"}, "/nme"),
        ],
    )
    async def test_an_invalid_field_is_named(self, service: Service, body: Any, pointer: str) -> None:
        response = await service.http.post("/v1/models/import", json=body)

        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, pointer)

    async def test_a_body_that_is_not_json(self, service: Service) -> None:
        response = await service.http.post("/v1/models/import", content=b"{", headers={"Content-Type": "application/json"})

        assert (response.status_code, response.json()["code"]) == (422, "malformed_json")


@pytest.fixture(scope="module")
def killed(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the data directories of servers that were killed during an import, by the point at which they were."""
    folders = {point: tmp_path_factory.mktemp(point) for point in ("marked", "registered", "committed")}
    for folder in folders.values():
        shutil.copy(migrated, folder / "tinyclip.db")
    script = [sys.executable, "-P", str(Path(__file__).parents[1] / "import_and_die.py")]
    subprocess.run([*script, *(f"{point}={folder}" for point, folder in folders.items())], timeout=60, check=True)
    return folders


class TestKilled:
    """A killed import leaves a complete version or none, and its remains are removed."""

    @pytest.mark.parametrize(("point", "registered"), [("marked", []), ("registered", []), ("committed", [1])])
    async def test_at_any_point(
        self, start: Start, killed: dict[str, Path], tmp_path: Path, point: str, registered: list[int]
    ) -> None:
        shutil.copytree(killed[point], tmp_path, dirs_exist_ok=True)

        service = await start()
        assert await versions(service, "emoji") == registered
        assert (await send(service, name="emoji")).status_code == 201
        complete = await versions(service, "emoji")
        assert complete == [*registered, 2]
        self.age(service)
        await send(service, name="emoji")
        assert remains(service) == []
        folders = sorted(int(path.name) for path in (service.artifacts / "models/emoji").iterdir())
        assert folders == [*complete, 3]
        for number in folders:
            file = await service.http.get(f"/v1/models/emoji/versions/{number}/files/weights.safetensors")
            assert file.content == WEIGHTS

    async def test_a_process_that_dies_while_writing_leaves_no_version(self, start: Start) -> None:
        service = await start(import_command=FAKE_IMPORTER)

        response = await send(service, preset="dies-writing", name="emoji")

        assert (response.status_code, response.json()["code"]) == (422, "import_died")
        assert await versions(service, "emoji") == []
        assert (service.artifacts / "models/emoji/1").is_dir()
        self.age(service)
        await send(service, name="emoji")
        assert [path.name for path in (service.artifacts / "models/emoji").iterdir()] == ["2"]

    def age(self, service: Service) -> None:
        """Backdate the remains of imports."""
        for marker in (service.artifacts / "imports").glob("*"):
            mark = json.loads(marker.read_text())
            (service.artifacts / import_marker(marker.name)).write_text(json.dumps({**mark, "at": "2026-01-02T03:04:05+00:00"}))
        long_ago = time.time() - 86_400
        for path in (service.settings.data_dir / "imports").rglob("*"):
            os.utime(path, (long_ago, long_ago))
