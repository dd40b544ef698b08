"""A database works with one artifacts store only: fencing numbers and events are in the store."""

import asyncio
import json
from pathlib import Path

import pytest
from sqlalchemy import select
from tinyclip_server.database.tables import InstallationRow
from tinyclip_server.orchestration.installation import ForeignStore, bind

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
        assert json.loads(_file(service).read_text()) == {"id": row.id}
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

    async def test_a_new_database_adopts_the_id_of_its_store(self, service: Service) -> None:
        _file(service).parent.mkdir(exist_ok=True)
        _file(service).write_text('{"id": "of the store"}')

        await bind(service.app.state.services)

        assert (await _row(service)).id == "of the store"


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
