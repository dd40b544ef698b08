"""A database works with one artifacts store only, and a store with one database: fencing numbers and events are in the store."""

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select
from tinyclip.artifacts.remote import StoreUnavailable
from tinyclip_server.database.tables import InstallationRow
from tinyclip_server.local import backup
from tinyclip_server.orchestration import installation
from tinyclip_server.orchestration.installation import ForeignStore, bind, foreign_store, take_over

from tests.server.service import Service, Start, eventually, on_both_databases


async def _row(service: Service) -> InstallationRow:
    async with service.app.state.services.db.read() as session:
        return (await session.scalars(select(InstallationRow))).one()


def _file(service: Service) -> Path:
    return service.artifacts / "installation.json"


@on_both_databases
class TestBinding:
    async def test_a_new_database_and_an_empty_store_belong_together_from_then_on(self, service: Service) -> None:
        await bind(service.app.state.services)
        await bind(service.app.state.services)

        row = await _row(service)
        assert json.loads(_file(service).read_text()) == {
            "id": row.id, "owner": row.owners[-1], "database": installation._place(service.app.state.services.db)
        }
        assert row.artifacts == str(service.artifacts)

    @pytest.mark.parametrize("there", ["nothing", "another id", "no JSON"])
    async def test_another_store_is_refused(self, start: Start, service: Service, tmp_path: Path, there: str) -> None:
        await bind(service.app.state.services)
        second = await start(artifacts=str(tmp_path / "second"))
        if there != "nothing":
            _file(second).parent.mkdir()
            _file(second).write_text('{"id": "other"}' if there == "another id" else "?")

        with pytest.raises(ForeignStore, match=f"belongs to the artifacts store at {service.artifacts}, and"):
            await bind(second.app.state.services)

        assert _file(second).exists() == (there != "nothing")

    async def test_a_moved_store_is_the_same_one(self, start: Start, service: Service, tmp_path: Path) -> None:
        await bind(service.app.state.services)
        service.artifacts.rename(tmp_path / "moved")
        second = await start(artifacts=str(tmp_path / "moved"))

        await bind(second.app.state.services)

        assert (await _row(second)).id in _file(second).read_text()

    async def test_the_store_of_revision_0010_is_the_databases_own(self, service: Service) -> None:
        async with service.app.state.services.db.write() as session:
            row = (await session.scalars(select(InstallationRow))).one()
            row.artifacts = str(service.artifacts)
        _file(service).parent.mkdir(exist_ok=True)
        _file(service).write_text(json.dumps({"id": row.id}))

        await bind(service.app.state.services)

        assert json.loads(_file(service).read_text())["owner"] == (await _row(service)).owners[-1]

    async def test_servers_of_one_database_start_at_once(self, start: Start, service: Service) -> None:
        others = [await start() for _ in range(3)]

        await asyncio.gather(*(bind(each.app.state.services) for each in (service, *others)))

        for each in (service, *others):
            assert await foreign_store(each.app.state.services.db, each.app.state.services.store) is None


    async def test_a_server_that_is_bound_while_another_one_reads_is_no_obstacle(
        self, start: Start, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        second = await start()
        store = second.app.state.services.store
        read = store.read_if_exists

        async def read_before_the_other_is_bound(path: str) -> bytes | None:
            found: bytes | None = await read(path)
            monkeypatch.setattr(store, "read_if_exists", read)
            await bind(service.app.state.services)
            return found

        monkeypatch.setattr(store, "read_if_exists", read_before_the_other_is_bound)

        await bind(second.app.state.services)

        assert store.refusal is None


class TestAnotherDatabase:
    @pytest.mark.parametrize("document", ['{"id": "other"}', '{"id": "other", "owner": "o", "database": "postgresql://db/first"}'])
    async def test_a_new_one_is_refused(self, service: Service, document: str) -> None:
        _file(service).parent.mkdir(exist_ok=True)
        _file(service).write_text(document)

        with pytest.raises(ForeignStore, match=f"artifacts store at {service.artifacts} belongs to the database .*--take-over"):
            await bind(service.app.state.services)

        assert _file(service).read_text() == document

    async def test_of_two_new_ones_that_start_at_once_one_is_refused(
        self, start: Start, service: Service, migrated: Path, tmp_path: Path
    ) -> None:
        second = await _beside(start, migrated, tmp_path, service)

        done = await asyncio.gather(*(bind(each.app.state.services) for each in (service, second)), return_exceptions=True)

        assert sorted(map(type, done), key=str) == sorted([type(None), ForeignStore], key=str)

    async def test_a_copy_from_before_the_last_start_is_refused(self, start: Start, service: Service, tmp_path: Path) -> None:
        await bind(service.app.state.services)
        copy = _copied(service, tmp_path)
        await bind(service.app.state.services)
        second = await _beside(start, copy, tmp_path, service)

        with pytest.raises(ForeignStore, match=f"belongs to the database sqlite:///{tmp_path}/tinyclip.db, and this one is"):
            await bind(second.app.state.services)

        assert await foreign_store(service.app.state.services.db, service.app.state.services.store) is None

    async def test_a_copy_from_after_it_owns_the_store_from_its_start_on(
        self, start: Start, service: Service, tmp_path: Path
    ) -> None:
        await bind(service.app.state.services)
        second = await _beside(start, _copied(service, tmp_path), tmp_path, service)

        await bind(second.app.state.services)

        assert await foreign_store(second.app.state.services.db, second.app.state.services.store) is None
        with pytest.raises(ForeignStore):
            await bind(service.app.state.services)
        with pytest.raises(StoreUnavailable, match="belongs to"):
            await service.app.state.services.store.remove("jobs")

    async def test_a_running_one_stops_its_work_and_continues_when_it_owns_the_store_again(
        self, start: Start, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(installation, "CHECK_SECONDS", 0.02)
        monkeypatch.setattr(installation, "RETRY_SECONDS", 0.02)
        await bind(service.app.state.services)
        before = _file(service).read_text()
        running = await start(schedule=True, tick_seconds=0.01)
        second = await _beside(start, _copied(service, tmp_path), tmp_path, service)
        store = running.app.state.services.store

        async def bound() -> bool:
            return _file(service).read_text() != before

        await eventually(bound)

        async def refused() -> bool:
            return store.refusal is not None

        await take_over(second.app.state.services.db, second.app.state.services.store)
        await eventually(refused)
        await service.submit()
        await asyncio.sleep(0.1)
        assert running.ray.submissions == []
        assert (await running.http.get("/readyz")).status_code == 503
        await take_over(service.app.state.services.db, service.app.state.services.store)

        async def submitted() -> bool:
            return bool(running.ray.submissions)

        await eventually(submitted)

    async def test_an_owner_is_written_again_after_a_while(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(installation, "CHECK_SECONDS", 0.01)
        monkeypatch.setattr(installation, "OWNER_SECONDS", 0.0)
        await bind(service.app.state.services)
        before = _file(service).read_text()
        watch = asyncio.create_task(installation.until_foreign(service.app.state.services))

        async def changed() -> bool:
            return _file(service).read_text() not in ("", before)

        await eventually(changed)
        monkeypatch.setattr(installation, "CHECK_SECONDS", 60.0)
        await asyncio.sleep(0.1)  # cancelled in its pause: a cancelled statement would keep its connection open
        watch.cancel()
        assert json.loads(_file(service).read_text())["owner"] != json.loads(before)["owner"]

    async def test_a_database_that_was_lost_is_replaced_by_a_step_of_its_own(self, service: Service) -> None:
        _file(service).parent.mkdir(exist_ok=True)
        _file(service).write_text('{"id": "of the store", "owner": "lost", "database": "postgresql://db/lost"}')
        services = service.app.state.services

        await take_over(services.db, services.store)
        await bind(services)

        assert (await _row(service)).id == "of the store"  # it owns the applications on Ray Serve too


def _copied(service: Service, folder: Path) -> Path:
    copy = folder / "copied.db"
    backup._copy_database(folder / "tinyclip.db", copy)
    return copy


async def _beside(start: Start, database: Path, folder: Path, first: Service) -> Service:
    """Start a server of another SQLite file with the same artifacts."""
    shutil.copy(database, folder / "beside.db")
    if database.name != "copied.db":
        with closing(sqlite3.connect(folder / "beside.db")) as connection:
            connection.execute("UPDATE installation SET id = 'beside'")
            connection.commit()
    return await start(database_url=f"sqlite:///{folder / 'beside.db'}", artifacts=str(first.artifacts))


async def test_no_job_is_begun_with_another_store(start: Start, service: Service, tmp_path: Path) -> None:
    await bind(service.app.state.services)
    job = await service.submit()

    second = await start(artifacts=str(tmp_path / "second"), schedule=True, tick_seconds=0.01)
    await asyncio.sleep(0.1)

    assert second.ray.submissions == []
    assert (await service.job(job["id"]))["state"] == "queued"


async def test_jobs_begin_once_the_store_is_known(start: Start) -> None:
    service = await start(schedule=True, tick_seconds=0.01)
    await service.submit()

    async def submitted() -> bool:
        return bool(service.ray.submissions)

    await eventually(submitted)

    assert len(service.ray.submissions) == 1
