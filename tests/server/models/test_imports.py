"""`POST /v1/models/import`: a file becomes a version, or nothing changes."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tinyclip.artifacts.paths import import_marker

from tests.server.service import Service, Start, on_both_databases

WEIGHTS = bytes(range(256)) * 100
BINARY = {"Content-Type": "application/octet-stream"}


async def send(service: Service, content: Any = WEIGHTS, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
    return await service.http.post("/v1/models/import", params=query, content=content, headers={**BINARY, **(headers or {})})


async def versions(service: Service, name: str) -> list[int]:
    answer = await service.http.get(f"/v1/models/{name}")
    return answer.json()["versions"] if answer.status_code == 200 else []


def left(service: Service) -> list[str]:
    """What an import has left beside versions: uploads and markers."""
    folders = [service.settings.data_dir / "imports", service.artifacts / "imports"]
    return [path.name for folder in folders if folder.is_dir() for path in folder.iterdir()]


@on_both_databases
class TestUpload:
    async def test_becomes_a_version_with_its_alias(self, service: Service) -> None:
        name = "tinyclip-vit-40m-32-text-19m"
        answer = await send(service, file="TinyCLIP-40M.pt", preset="TinyCLIP-ViT-40M-32-Text-19M", alias="best", quick_gelu=True)

        made = answer.json()
        assert answer.status_code == 201, made
        assert answer.headers["location"] == f"/v1/models/{name}/versions/1"
        assert (made["name"], made["version"], made["aliases"], made["job"]) == (name, 1, ["best"], None)
        told = made["lineage"]["import"]
        assert (told["file"], told["options"]["quick_gelu"], told["options"]["head_width"]) == ("TinyCLIP-40M.pt", True, None)
        file = await service.http.get(f"{answer.headers['location']}/files/weights.safetensors")
        assert file.content == WEIGHTS
        assert left(service) == []

    async def test_the_next_gets_the_next_number_and_jobs_go_on_counting(self, service: Service) -> None:
        first, second = await send(service, name="emoji"), await send(service, name="emoji")
        job = await service.succeeded("emoji")

        assert [answer.json()["version"] for answer in (first, second)] == [1, 2]
        assert job["model"]["version"] == 3

    async def test_several_at_once_get_different_numbers(self, service: Service) -> None:
        answers = await asyncio.gather(*(send(service, name="emoji", content=WEIGHTS + bytes([n])) for n in range(4)))

        assert sorted(answer.json()["version"] for answer in answers) == [1, 2, 3, 4]
        assert await versions(service, "emoji") == [1, 2, 3, 4]

    async def test_the_same_request_again_gives_the_first_answer(self, service: Service) -> None:
        key = {"Idempotency-Key": "abc"}
        first, again = await send(service, headers=key, name="emoji"), await send(service, headers=key, name="emoji")
        other = await send(service, b"other", headers=key, name="emoji")

        assert (again.status_code, again.json()) == (201, first.json())
        assert again.headers["location"] == first.headers["location"]
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
    async def test_come_from_what_is_known(self, service: Service, query: dict[str, str], name: str) -> None:
        assert (await send(service, **query)).json()["name"] == name


class TestRefused:
    """Nothing has changed, and no number is used up."""

    @pytest.mark.parametrize(
        ("query", "pointer"),
        [
            ({"name": "No Good"}, "/name"), ({"alias": "3"}, "/alias"), ({"alias": "latest"}, "/alias"),
            ({"head_width": 0}, "/head_width"), ({"file": "a/b.pt"}, "/file"), ({"quick_gelu": "perhaps"}, "/quick_gelu"),
            ({"prest": "x"}, "/prest"), ({"file": "…"}, "/name"), ({"preset": "refused"}, "/file"),
        ],
    )  # fmt: skip
    async def test_a_bad_field_is_named(self, service: Service, query: dict[str, Any], pointer: str) -> None:
        answer = await send(service, **query)

        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
        assert (await send(service, name="refused")).json()["version"] == 1
        assert left(service) == []

    async def test_a_file_that_means_harm(self, service: Service) -> None:
        answer = await send(service, b"hostile", name="emoji")

        assert (answer.status_code, answer.json()["code"]) == (422, "import_refused")
        assert await versions(service, "emoji") == []

    async def test_an_empty_body(self, service: Service) -> None:
        assert (await send(service, b"")).json()["errors"][0]["pointer"] == "/file"

    @pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "text/plain", "application/x-www-form-urlencoded"])
    async def test_a_body_of_another_kind(self, service: Service, kind: str) -> None:
        answer = await send(service, headers={"Content-Type": kind})

        assert (answer.status_code, "application/octet-stream" in answer.json()["detail"]) == (415, True)

    @pytest.mark.parametrize("told", [True, False])
    async def test_a_file_that_is_too_large(self, start: Start, told: bool) -> None:
        service = await start(max_import_bytes=10_000)

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(1000):
                yield bytes(1000)

        answer = await send(service, bytes(10_001) if told else endless())

        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert left(service) == []

    @pytest.mark.parametrize(("preset", "code"), [("dies", "import_died"), ("hangs", "import_timeout")])
    async def test_a_file_that_its_process_dies_of(self, start: Start, preset: str, code: str) -> None:
        service = await start(import_timeout_seconds=1.5)

        answer = await send(service, preset=preset, name="emoji")

        assert (answer.status_code, answer.json()["code"]) == (422, code)
        assert (await send(service, name="emoji")).json()["version"] == 1

    async def test_a_full_disk(self, service: Service) -> None:
        answer = await send(service, preset="full", name="emoji")

        assert (answer.status_code, answer.json()["code"]) == (507, "not_written")
        assert not (service.artifacts / "models/emoji/1").exists()
        assert (await send(service, name="emoji")).json()["version"] == 2


class TestSource:
    async def test_is_read_by_the_server(self, service: Service, tmp_path: Path) -> None:
        (tmp_path / "weights.pt").write_bytes(WEIGHTS)

        answer = await service.http.post("/v1/models/import", json={"source": str(tmp_path / "weights.pt"), "alias": "best"})

        assert answer.status_code == 201
        assert (answer.json()["name"], answer.json()["aliases"]) == ("weights", ["best"])

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({}, "/source"), ([], ""), ({"source": "/x", "quick_gelu": "perhaps"}, "/quick_gelu"),
            ({"source": "/x", "nme": "y"}, "/nme"),
        ],
    )
    async def test_a_bad_field_is_named(self, service: Service, body: Any, pointer: str) -> None:
        answer = await service.http.post("/v1/models/import", json=body)

        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)

    async def test_a_body_that_is_not_json(self, service: Service) -> None:
        answer = await service.http.post("/v1/models/import", content=b"{", headers={"Content-Type": "application/json"})

        assert (answer.status_code, answer.json()["code"]) == (422, "malformed_json")


class TestKilled:
    """Wherever the server is killed there is a whole version or none, and what is left goes."""

    @pytest.mark.parametrize(("point", "made"), [("marked", []), ("registered", []), ("committed", [1])])
    async def test_at_any_line(self, start: Start, tmp_path: Path, database_url: str, point: str, made: list[int]) -> None:
        script = Path(__file__).parents[1] / "import_and_die.py"
        died = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-P", str(script), str(tmp_path), database_url, point], timeout=60, check=False
        )
        assert died.returncode == -9

        service = await start()
        assert await versions(service, "emoji") == made
        assert (await send(service, name="emoji")).status_code == 201
        whole = await versions(service, "emoji")
        assert whole == [*made, 2]
        self.age(service)
        await send(service, name="emoji")
        assert left(service) == []
        there = sorted(int(path.name) for path in (service.artifacts / "models/emoji").iterdir())
        assert there == [*whole, 3]
        for number in there:
            file = await service.http.get(f"/v1/models/emoji/versions/{number}/files/weights.safetensors")
            assert file.content == WEIGHTS

    async def test_a_process_killed_while_writing_leaves_no_version(self, service: Service) -> None:
        answer = await send(service, preset="dies-writing", name="emoji")

        assert (answer.status_code, answer.json()["code"]) == (422, "import_died")
        assert await versions(service, "emoji") == []
        assert (service.artifacts / "models/emoji/1").is_dir()
        self.age(service)
        await send(service, name="emoji")
        assert [path.name for path in (service.artifacts / "models/emoji").iterdir()] == ["2"]

    def age(self, service: Service) -> None:
        """What was left was left long ago."""
        for marker in (service.artifacts / "imports").glob("*"):
            mark = json.loads(marker.read_text())
            (service.artifacts / import_marker(marker.name)).write_text(json.dumps({**mark, "at": "2026-01-02T03:04:05+00:00"}))
        long_ago = time.time() - 86_400
        for path in (service.settings.data_dir / "imports").rglob("*"):
            os.utime(path, (long_ago, long_ago))
