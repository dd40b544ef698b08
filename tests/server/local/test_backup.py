"""Backup and restore: a restored service gives the answers of the one that was backed up, whatever happened meanwhile."""

import asyncio
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from sqlalchemy import select
from tinyclip_server import cli
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.database.migrate import go_to, revisions
from tinyclip_server.database.tables import IdempotencyRow
from tinyclip_server.local import backup
from tinyclip_server.local.backup import CannotBackUp, Copied, back_up, restore
from tinyclip_server.orchestration.installation import bind
from tinyclip_server.settings import Settings

from tests.server.datasets.pairs import NAME
from tests.server.datasets.pairs import body as dataset_body
from tests.server.datasets.pairs import write_files as write_dataset
from tests.server.documents import dataset_document
from tests.server.events import Worker
from tests.server.local.one_of_each import (
    EMBED_DIM,
    GALLERY,
    MODEL,
    VERSION,
    added,
    answers,
    hits,
    run_index_job,
    service_with_one_of_each,
)
from tests.server.service import Service, Start
from tests.workers.index_jobs import unit_vectors, vector_items


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return tmp_path / "saved"


def at(folder: Path) -> Settings:
    """Return the settings of an embedded service."""
    return Settings(data_dir=folder)


async def backed_up(service: Service, target: Path) -> Copied:
    copied = await asyncio.to_thread(back_up, at(service.settings.data_dir), target)
    assert copied.missing == []
    return copied


async def restored(start: Start, source: Path, folder: Path, **changes: Any) -> Service:
    """Restore into a new folder and start a service on it."""
    copied = await asyncio.to_thread(restore, at(folder), source)
    assert copied.missing == []
    service = await start(data_dir=folder, database_url=f"sqlite:///{folder / 'tinyclip.db'}", **changes)
    await bind(service.app.state.services)  # the artifacts are the database's own
    return service


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def destroy(service: Service) -> None:
    """Delete the data of a service."""
    shutil.rmtree(service.artifacts)
    service.settings.data_dir.joinpath("tinyclip.db").unlink()


class TestEmbedded:
    async def test_a_restored_service_gives_the_same_answers(self, start: Start, saved: Path, tmp_path: Path) -> None:
        service, secret = await service_with_one_of_each(start)
        before = await answers(service, secret)

        await backed_up(service, saved)
        destroy(service)
        again = await restored(start, saved, tmp_path / "new", auth="tokens", data_roots=["/data"])

        assert await answers(again, secret) == before
        assert len(before["hits"]) == 7
        async with again.app.state.services.db.read() as session:
            assert set(await session.scalars(select(IdempotencyRow.key))) == {"once", "eval"}

    async def test_a_restored_service_continues(self, start: Start, saved: Path, tmp_path: Path) -> None:
        service, _ = await service_with_one_of_each(start)
        await backed_up(service, saved)
        again = await restored(start, saved, tmp_path / "new")

        await added(again, 3, first=100)
        await again.tick()

        assert (await again.get(GALLERY))["count"] == len(hits(again)) == 10
        assert [job["name"] for job in await again.items("/v1/jobs") if job["state"] == "starting"] == ["waiting"]

    async def test_the_service_may_run_and_the_database_is_one_file(self, start: Start, saved: Path) -> None:
        service, _ = await service_with_one_of_each(start)
        folder = service.settings.data_dir
        with FileLock(folder / "lock"), closing(sqlite3.connect(folder / "tinyclip.db")) as writing:
            writing.execute("BEGIN IMMEDIATE")

            await backed_up(service, saved)

        assert names(saved) == ["artifacts", "tinyclip.db"]

    async def test_files_that_disappear_meanwhile_are_in_no_backup(
        self, start: Start, saved: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service, _ = await service_with_one_of_each(start)
        loop, copies = asyncio.get_running_loop(), []

        def delete_then_mirror(source: Path, target: Path) -> None:
            if not copies:  # the database names the export by now
                asyncio.run_coroutine_threadsafe(_delete_export(service), loop).result(20)
            copies.append(target)
            mirror(source, target)

        mirror = backup._mirror
        monkeypatch.setattr(backup, "_mirror", delete_then_mirror)

        await backed_up(service, saved)

        assert len(copies) == 2

    async def test_a_file_that_is_missing_in_the_service_is_reported_with_the_backup(self, start: Start, saved: Path) -> None:
        service, _ = await service_with_one_of_each(start)
        lost = f"models/{MODEL}/1/open_clip_model.safetensors"
        (service.artifacts / lost).unlink()

        copied = await asyncio.to_thread(back_up, at(service.settings.data_dir), saved)

        assert copied.missing == [lost]
        assert names(saved) == ["artifacts", "tinyclip.db"]

    @pytest.mark.parametrize(
        "lost",
        [
            "segments", "generations", "onnx/image.onnx", "emoji/1/report.json", "/000001.parquet", "/reinforcement.json",
            "/pets.json.gz",
        ],
        ids=lambda name: str(name).rpartition("/")[2],
    )
    async def test_what_a_row_needs_is_missed(self, start: Start, saved: Path, lost: str) -> None:
        service, _ = await service_with_one_of_each(start)
        [found, *_] = [path for path in service.artifacts.rglob("*") if str(path).endswith(lost)]
        shutil.rmtree(found) if found.is_dir() else found.unlink()

        copied = await asyncio.to_thread(back_up, at(service.settings.data_dir), saved)

        assert [path for path in copied.missing if lost in path] == copied.missing != []


class TestWrittenBetweenTheCopies:
    """The artifacts of a backup are newer than its database."""

    async def test_an_update_after_the_restore_is_applied(
        self, start: Start, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service, _ = await service_with_one_of_each(start)
        await _backed_up_while(service, saved, monkeypatch, added(service, 2, first=50))

        again = await restored(start, saved, tmp_path / "new")
        known = await again.get(GALLERY)
        await added(again, 1, first=60)

        assert (known["count"], known["updates"], known["applied_updates"], known["pending_updates"]) == (9, 3, 3, 0)
        assert {"v50", "v51", "v60"} <= {hit["id"] for hit in hits(again)}

    async def test_an_update_that_was_pending_is_applied_once(
        self, start: Start, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service, _ = await service_with_one_of_each(start)
        items = {"items": vector_items(unit_vectors(2, EMBED_DIM, seed=3), 70)}
        await service.call("POST", f"{GALLERY}/items", items, status=202)
        await _backed_up_while(service, saved, monkeypatch, run_index_job(service))

        again = await restored(start, saved, tmp_path / "new")
        pending = (await again.get(GALLERY))["pending_updates"]
        await run_index_job(again)

        assert pending == 1
        assert (await again.get(GALLERY))["count"] == len(hits(again)) == 9

    async def test_a_version_gets_no_number_that_was_used(
        self, start: Start, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service, _ = await service_with_one_of_each(start)
        await _backed_up_while(service, saved, monkeypatch, _written_versions(service))

        again = await restored(start, saved, tmp_path / "new")

        assert await again.register_model(MODEL) == 3
        assert await again.register_model("unknown-to-the-database") == 1
        assert names(again.artifacts / "models/unknown-to-the-database") == []

    @pytest.mark.parametrize("name", [NAME, "unknown-to-the-database"])
    async def test_a_version_of_a_data_set_gets_no_number_that_was_used(
        self, start: Start, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        service, _ = await service_with_one_of_each(start)
        await _backed_up_while(service, saved, monkeypatch, _written_dataset(service, name, 2))

        again = await restored(start, saved, tmp_path / "new")
        registering = await again.call("PUT", f"/v1/datasets/{name}", dataset_body(), status=202)

        assert registering["ray_submission_id"] == f"tc-dataset-{name}-v3-a1"

    @pytest.mark.parametrize("meanwhile", ["begins", "succeeds"])
    async def test_an_attempt_gets_no_number_that_was_used(
        self, start: Start, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str
    ) -> None:
        service = await start()
        job = (await service.submit(max_attempts=1))["id"]
        await _backed_up_while(service, saved, monkeypatch, _begun(service, job, succeeds=meanwhile == "succeeds"))

        again = await restored(start, saved, tmp_path / "new")
        await again.tick(2)

        assert again.ray.submissions == [f"tc-{job}-a2"]
        assert [event["type"] for event in await again.events(job)] == ["job.created", "job.starting", "attempt.submitted"]

    async def test_an_attempt_that_was_followed_by_another_one_has_ended(
        self, start: Start, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service = await start()
        job = (await service.running(max_attempts=2)).job
        await _backed_up_while(service, saved, monkeypatch, _lost_and_begun(service, job))

        again = await restored(start, saved, tmp_path / "new")
        queued = await again.job(job)
        await again.tick(2)

        assert (queued["state"], queued["attempt"]) == ("queued", 2)
        assert again.ray.submissions == [f"tc-{job}-a3"]
        assert (await again.job(job))["state"] == "starting"


class TestKills:
    async def test_a_killed_backup_leaves_none_and_the_next_one_succeeds(
        self, start: Start, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service, _ = await service_with_one_of_each(start)
        with monkeypatch.context() as patch:
            patch.setattr(backup.os, "sync", _die)
            with pytest.raises(Killed):
                await asyncio.to_thread(back_up, at(service.settings.data_dir), saved)

        assert "saved" not in names(tmp_path)
        await backed_up(service, saved)

    @pytest.mark.parametrize("step", ["sync", "rename"])
    async def test_a_killed_restore_is_repeated(
        self, start: Start, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        service, secret = await service_with_one_of_each(start)
        before = await answers(service, secret)
        await backed_up(service, saved)
        with monkeypatch.context() as patch:
            if step == "sync":
                patch.setattr(backup.os, "sync", _die)
            else:  # after the artifacts, before the database
                rename = Path.rename
                patch.setattr(Path, "rename", lambda path, to: _die() if "tinyclip.db" in path.name else rename(path, to))
            with pytest.raises(Killed):
                await asyncio.to_thread(restore, at(tmp_path / "new"), saved)

        assert "tinyclip.db" not in names(tmp_path / "new")
        again = await restored(start, saved, tmp_path / "new", auth="tokens", data_roots=["/data"])
        assert await answers(again, secret) == before

    @pytest.mark.parametrize("step", ["migration", "rename"])
    async def test_what_was_not_restored_is_not_removed_afterwards(
        self, start: Start, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        await backed_up(await start(), saved)
        new = tmp_path / "new"
        with monkeypatch.context() as patch:
            if step == "migration":  # before the artifacts are in place
                patch.setattr(backup, "_bring_up", _die)
            else:
                patch.setattr(Path, "rename", _die)
            with pytest.raises(Killed):
                await asyncio.to_thread(restore, at(new), saved)
        mine = tmp_path / "other-artifacts" if step == "rename" else new / "artifacts"
        mine.mkdir()
        (mine / "mine").touch()

        with pytest.raises(CannotBackUp, match="is not empty"):
            await asyncio.to_thread(restore, at(new).model_copy(update={"artifacts": str(mine)}), saved)

        assert (mine / "mine").exists()


class TestRefusals:
    def test_a_service_without_a_database_has_no_backup(self, tmp_path: Path, saved: Path) -> None:
        with pytest.raises(CannotBackUp, match="choose another --data-dir"):
            back_up(at(tmp_path / "nothing"), saved)

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"database_url": "postgresql://u:p@h/d"}, "pg_dump"),
            ({"artifacts": "s3://bucket/tinyclip"}, "s3://bucket/tinyclip, not in a folder"),
        ],
        ids=["postgresql", "s3"],
    )
    def test_other_profiles_are_refused_with_a_pointer(
        self, tmp_path: Path, saved: Path, changes: dict[str, str], match: str
    ) -> None:
        for work in (back_up, restore):
            with pytest.raises(CannotBackUp, match=f"{match}.*docs/operations.md"):
                work(Settings.model_validate({"data_dir": tmp_path, **changes}), saved)

    async def test_a_folder_is_written_once_and_not_into_itself(self, start: Start, saved: Path) -> None:
        service = await start()
        await backed_up(service, saved)

        with pytest.raises(CannotBackUp, match="exists; name a new folder"):
            await asyncio.to_thread(back_up, at(service.settings.data_dir), saved)
        with pytest.raises(CannotBackUp, match="is in the artifacts"):
            await asyncio.to_thread(back_up, at(service.settings.data_dir), service.artifacts / "saved")

    async def test_nothing_is_restored_over_data_or_a_running_service(self, start: Start, saved: Path, tmp_path: Path) -> None:
        service = await start()
        await backed_up(service, saved)
        files = tmp_path / "files"
        (files / "artifacts").mkdir(parents=True)
        (files / "artifacts" / "mine").touch()

        for lock in ("lock", "tinyclip.db.lock"):
            with FileLock(tmp_path / "other" / lock), pytest.raises(CannotBackUp, match="stop it"):
                restore(at(tmp_path / "other"), saved)
        with pytest.raises(CannotBackUp, match=r"tinyclip\.db exists; move it"):
            await asyncio.to_thread(restore, at(service.settings.data_dir), saved)
        with pytest.raises(CannotBackUp, match="is not empty"):
            restore(at(files), saved)
        with pytest.raises(CannotBackUp, match="is no backup"):
            restore(at(tmp_path / "new"), files)
        assert (files / "artifacts" / "mine").exists()

    async def test_a_backup_of_a_newer_release_is_refused(self, start: Start, saved: Path, tmp_path: Path) -> None:
        await backed_up(await start(), saved)
        with closing(sqlite3.connect(saved / "tinyclip.db", isolation_level=None)) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")

        with pytest.raises(CannotBackUp, match="9999, which this server does not know"):
            await asyncio.to_thread(restore, at(tmp_path / "new"), saved)
        assert "tinyclip.db" not in names(tmp_path / "new")

    async def test_a_database_of_an_older_release_is_backed_up_as_it_is(self, start: Start, saved: Path, tmp_path: Path) -> None:
        service = await start()
        older = revisions()[-2]
        await go_to(service.settings.async_database_url, older)

        await backed_up(service, saved)

        with closing(sqlite3.connect(saved / "tinyclip.db")) as connection:
            assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(older,)]
        assert (await restored(start, saved, tmp_path / "new")).settings.data_dir == tmp_path / "new"


class TestCommands:
    async def test_they_report_what_they_did(
        self, start: Start, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        service, _ = await service_with_one_of_each(start)
        old, new = str(service.settings.data_dir), str(tmp_path / "new")

        for arguments in (["backup", str(saved), "--data-dir", old], ["restore", str(saved), "--data-dir", new]):
            assert await asyncio.to_thread(_run, monkeypatch, *arguments) == 0
        assert await asyncio.to_thread(_run, monkeypatch, "reconcile", "--data-dir", new) == 0
        lines = capsys.readouterr().out.splitlines()

        assert lines[0].startswith(f"{saved}: ")
        assert lines[1].startswith(f"{new}: ")
        assert lines[2] == "database and artifacts agree"

    async def test_missing_files_end_them_with_an_error(
        self, start: Start, saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        service, _ = await service_with_one_of_each(start)
        (service.artifacts / f"models/{MODEL}/1/open_clip_model.safetensors").unlink()

        code = await asyncio.to_thread(_run, monkeypatch, "backup", str(saved), "--data-dir", str(service.settings.data_dir))

        assert code == 1
        assert f"names 1 files that the artifacts do not contain: models/{MODEL}/1/open_clip" in capsys.readouterr().err


async def _delete_export(service: Service) -> None:
    [submission] = [id for id in service.ray.submissions if id.startswith("tc-export-")]
    service.ray.jobs[submission] = RayJobStatus.SUCCEEDED
    response = await service.http.delete(f"{VERSION}/exports/onnx")
    assert response.status_code == 202
    await service.reconcile("exports", 2)
    assert not (service.artifacts / f"models/{MODEL}/1/exports/onnx").exists()


async def _written_versions(service: Service) -> None:
    """Write a version of the known model, and one of a new model."""
    for name in (f"{MODEL}/2", "unknown-to-the-database/1"):
        (service.artifacts / "models" / name).mkdir(parents=True)
        (service.artifacts / "models" / name / "model.json").write_text("{}")


async def _written_dataset(service: Service, name: str, version: int) -> None:
    write_dataset(service, dataset_document(name, version))


async def _begun(service: Service, job: str, *, succeeds: bool = False) -> None:
    """Begin the next attempt of a job, whose driver registers."""
    await service.tick()
    worker = Worker(service.artifacts, await service.job(job))
    worker.start()
    (worker.folder.parent / "driver.json").write_text("{}")
    if succeeds:
        worker.succeed()


async def _lost_and_begun(service: Service, job: str) -> None:
    service.ray.jobs[f"tc-{job}-a1"] = RayJobStatus.FAILED
    await service.tick()
    await _begun(service, job)


async def _backed_up_while(service: Service, target: Path, monkeypatch: pytest.MonkeyPatch, work: Any) -> None:
    """Back up, with work that happens after the copy of the database and before that of the artifacts."""
    loop, mirror = asyncio.get_running_loop(), backup._mirror

    def work_then_mirror(source: Path, copy: Path) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(60)
        mirror(source, copy)

    with monkeypatch.context() as patch:
        patch.setattr(backup, "_mirror", work_then_mirror)
        await backed_up(service, target)


class Killed(BaseException):
    """The end of the process."""


def _die(*_: Any) -> None:
    raise Killed


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tinyclip-server", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    code = exit_info.value.code
    return code if isinstance(code, int) else 0
