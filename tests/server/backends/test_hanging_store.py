"""A server whose artifacts store on S3 never answers, or fails: only what needs the store is refused, in limited time."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tinyclip.artifacts import remote
from tinyclip.artifacts.paths import attempt_events, event_segment, job_control, model_version
from tinyclip.artifacts.remote import StoreUnavailable
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip_server.backends import artifacts as artifacts_module
from tinyclip_server.backends.artifacts import AsyncArtifactsStore

from tests.fault_proxy import Fault, FaultProxy
from tests.s3 import BUCKET
from tests.server.deployments.demo import MODEL, put
from tests.server.events import write_segment
from tests.server.fakes import ScriptedServe
from tests.server.service import Service, Start

HANGING = Fault("hang", forward=False)
LIMIT = 1.0
"""Patched in for the time limit of a call."""
SLACK = 1.0
"""Seconds that a busy machine may need besides."""


@pytest.fixture
def root(faulty_s3: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(artifacts_module, "CALL_SECONDS", LIMIT)
    monkeypatch.setattr(artifacts_module, "REMOVAL_SECONDS", LIMIT)
    root = f"s3://{BUCKET}/{tmp_path.name}"
    assert not ArtifactsStore(root).exists("x")  # its client exists now, which takes longer than the limit
    return root


@pytest.fixture
async def service(start: Start, root: str) -> Service:
    return await start(artifacts=root, max_running_jobs=2)


class TestRequests:
    @pytest.mark.parametrize("fault", [HANGING, Fault("error", forward=False)], ids=["hanging", "503"])
    async def test_requests_that_need_the_store_are_refused_in_limited_time(
        self, service: Service, faulty_s3: FaultProxy, fault: Fault
    ) -> None:
        job = await service.submit()
        await service.register_model("m")
        [file, *_] = (await service.get("/v1/models/m/versions/1"))["files"]
        faulty_s3.set(fault)

        for path in (f"/v1/models/m/versions/1/files/{file['path']}", f"/v1/jobs/{job['id']}/checkpoints"):
            started = time.monotonic()
            response = await service.http.get(path)

            assert time.monotonic() - started < LIMIT + SLACK
            assert (response.status_code, response.json()["code"]) == (503, "store_unavailable"), path
            assert response.headers["Retry-After"] == "5"

    async def test_other_requests_and_threads_are_not_affected(
        self, service: Service, faulty_s3: FaultProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = await service.submit()
        monkeypatch.setattr(artifacts_module, "CALL_SECONDS", 4.0)
        faulty_s3.set(HANGING)
        waiting = [asyncio.create_task(service.http.get(f"/v1/jobs/{job['id']}/checkpoints")) for _ in range(60)]
        await asyncio.sleep(0.2)

        await asyncio.to_thread(len, "what else needs a thread")
        listed = await service.items("/v1/jobs")

        assert not any(request.done() for request in waiting)
        assert [found["id"] for found in listed] == [job["id"]]
        assert {response.status_code for response in await asyncio.gather(*waiting)} == {503}

    async def test_a_file_is_served_again_after_the_outage(self, service: Service, faulty_s3: FaultProxy, root: str) -> None:
        await service.register_model("m")
        [file, *_] = (await service.get("/v1/models/m/versions/1"))["files"]
        ArtifactsStore(root).write_bytes(f"{model_version('m', 1)}/{file['path']}", bytes(file["bytes"]))
        path = f"/v1/models/m/versions/1/files/{file['path']}"
        faulty_s3.set(HANGING)
        assert (await service.http.get(path)).status_code == 503
        faulty_s3.set()

        assert (await service.http.get(path)).content == bytes(file["bytes"])


class TestRounds:
    async def test_files_of_one_job_that_hang_do_not_stop_the_others(
        self, service: Service, faulty_s3: FaultProxy, root: str, tmp_path: Path
    ) -> None:
        stuck, other = await service.submit(), await service.submit()
        await service.tick(2)
        write_segment(tmp_path / "events", {"type": "attempt.started"})
        segment = (tmp_path / "events" / "00000001.jsonl").read_bytes()
        ArtifactsStore(root).write_bytes(event_segment(attempt_events(other["id"], 1), 1), segment)
        faulty_s3.set(Fault("hang", path=stuck["id"], forward=False))

        begun = time.monotonic()
        await service.tick()

        assert time.monotonic() - begun < 2 * LIMIT + SLACK
        assert "attempt.started" in [event["type"] for event in await service.events(other["id"])]
        assert "attempt.held_up" in [event["type"] for event in await service.events(stuck["id"])]
        faulty_s3.set()
        await service.tick()
        assert ArtifactsStore(root).exists(job_control(stuck["id"]))


    async def test_a_deleted_deployment_whose_files_hang_does_not_stop_the_others(
        self, start: Start, root: str, faulty_s3: FaultProxy
    ) -> None:
        service = await start(ScriptedServe(), artifacts=root)
        await service.register_model(MODEL)
        for name in ("stuck", "other"):
            await put(service, f"/v1/deployments/{name}")
        await service.http.delete("/v1/deployments/stuck")
        faulty_s3.set(Fault("hang", path="deployments/stuck", forward=False))

        await service.reconcile("deployments")

        states = {found["name"]: found["state"] for found in await service.items("/v1/deployments")}
        assert states == {"stuck": "deleting", "other": "ready"}
        faulty_s3.set()
        await service.reconcile("deployments")
        assert [found["name"] for found in await service.items("/v1/deployments")] == ["other"]


class TestStore:
    async def test_a_mounted_folder_that_hangs_is_an_error_in_limited_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(artifacts_module, "CALL_SECONDS", 0.2)
        monkeypatch.setattr(ArtifactsStore, "read_if_exists", lambda self, path: time.sleep(0.5))
        store = AsyncArtifactsStore(str(tmp_path))

        with pytest.raises(StoreUnavailable, match=f"{tmp_path}/a"):
            await store.read_if_exists("a")

    @pytest.mark.parametrize("method", ["write_bytes", "create_bytes", "remove"])
    async def test_a_call_that_has_failed_changes_nothing_later(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        """The folder hangs until the next holder of the lease has written its file."""
        ArtifactsStore(str(tmp_path)).write_bytes("kept/old", b"old")
        monkeypatch.setattr(artifacts_module, "CALL_SECONDS", 0.2)
        monkeypatch.setattr(artifacts_module, "REMOVAL_SECONDS", 0.2)
        hangs = threading.Event()
        full = ArtifactsStore._full

        def hanging(self: ArtifactsStore, path: str) -> str:
            hangs.wait(5)
            return full(self, path)

        monkeypatch.setattr(ArtifactsStore, "_full", hanging)
        store = AsyncArtifactsStore(str(tmp_path))
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "write_bytes": lambda: store.write_bytes("kept/old", b"fence 1"),
            "create_bytes": lambda: store.create_bytes("kept/new", b"late"),
            "remove": lambda: store.remove("kept"),
        }
        with pytest.raises(StoreUnavailable):
            await calls[method]()
        (tmp_path / "kept" / "old").write_bytes(b"fence 2")

        hangs.set()
        await asyncio.to_thread(store._threads.shutdown)

        assert {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()} == {"old": b"fence 2"}

    async def test_a_write_has_no_more_time_than_the_lease(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ArtifactsStore, "write_bytes", lambda *_: time.sleep(0.5))
        store = AsyncArtifactsStore(str(tmp_path))

        with pytest.raises(StoreUnavailable, match=r"within 0\.1 s"):
            await store.write_bytes("a", b"", within_s=0.1)

    async def test_repetitions_end_with_the_call(
        self, root: str, faulty_s3: FaultProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A call that has several requests, such as a removal, has one limit for all of them."""
        store = AsyncArtifactsStore(root)
        await store.write_bytes("folder/file", b"")
        faulty_s3.set(HANGING)
        with pytest.raises(StoreUnavailable):
            await store.remove("folder")
        faulty_s3.set()

        await asyncio.to_thread(store._threads.shutdown)

        assert ArtifactsStore(root).exists("folder/file")
