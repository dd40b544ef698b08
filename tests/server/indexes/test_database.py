"""Indexes in PostgreSQL: the checks of a request, the request of the Ray job, and the deletion of tables."""

import contextlib
import logging
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tinyclip.index_database import pictures_name, shards_name, state_name, table_name
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.indexes import database as index_database_module
from tinyclip_server.local.doctor import examine
from tinyclip_server.local.ray import LocalRay
from tinyclip_server.logs import Formatter, known_secrets
from tinyclip_server.settings import Settings

from tests.postgres import database
from tests.server.indexes.gallery import GALLERY, MODEL, SOURCE, build, put
from tests.server.service import Service, Start

NOWHERE = "postgresql://me:very-secret@127.0.0.1:1/indexes"
BODY = {"model": f"{MODEL}@1", "source": SOURCE, "store": "pgvector"}


@pytest.fixture
async def service(start: Start, index_database: str) -> Service:
    service = await start(index_database_url=index_database)
    await service.register_model(MODEL)
    return service


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


class TestPut:
    async def test_the_job_gets_the_store_and_never_the_url(self, service: Service) -> None:
        index = await put(service, store="pgvector")
        await service.reconcile("indexes")

        assert index["store"] == "pgvector"
        assert service.ray_request()["store"] == "pgvector"
        [submission] = service.ray.submissions
        assert "postgresql" not in str(service.ray_request()) + service.ray.entrypoints[submission]

    async def test_files_are_the_default(self, service: Service) -> None:
        index = await put(service)
        await service.reconcile("indexes")

        assert (index["store"], service.ray_request()["store"]) == ("files", "files")

    async def test_in_another_store_it_is_another_build(self, service: Service) -> None:
        await put(service, store="files")
        await service.reconcile("indexes")
        first = service.ray_request()["build"]

        await put(service, store="pgvector")
        await service.reconcile("indexes")

        assert service.ray_request()["build"] > first

    async def test_without_a_database_it_is_refused(self, start: Start) -> None:
        service = await start()
        await service.register_model(MODEL)

        problem = await service.call("PUT", GALLERY, BODY, status=422)

        assert problem["code"] == "index_store_not_configured"
        assert problem["errors"][0]["pointer"] == "/store"
        assert "set TINYCLIP_INDEX_DATABASE_URL for the server and on every node" in problem["detail"]

    async def test_without_the_extension_it_is_refused(self, start: Start, postgres: str) -> None:
        with database(postgres, extension=False) as url:
            service = await start(index_database_url=url)
            await service.register_model(MODEL)

            problem = await service.call("PUT", GALLERY, BODY, status=422)

        assert problem["code"] == "index_store_unfit"
        assert "has no extension vector; let a superuser run CREATE EXTENSION vector in it" in problem["detail"]

    async def test_while_the_database_is_unavailable_it_can_be_retried(self, start: Start) -> None:
        service = await start(index_database_url=NOWHERE)
        await service.register_model(MODEL)

        response = await service.http.put(GALLERY, json=BODY)

        assert (response.status_code, response.headers["Retry-After"]) == (503, "10")
        assert "very-secret" not in response.text

    @pytest.mark.parametrize("url", ["mysql://me:very-secret@h/x", "postgresql://me:very-secret@h:port/x"])
    async def test_an_invalid_url_is_not_repeated(self, start: Start, url: str) -> None:
        service = await start(index_database_url=url)
        await service.register_model(MODEL)

        response = await service.http.put(GALLERY, json=BODY)

        assert response.status_code == 503
        assert "very-secret" not in response.text
        assert "is not a URL like postgresql://USER:PASSWORD@HOST/NAME" in response.json()["detail"]


async def build_with_tables(service: Service, url: str) -> str:
    """Build the index, and create tables as its job would; return their id."""
    await build(service, store="pgvector")
    service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.SUCCEEDED
    id = uuid.uuid4().hex
    folder = service.artifacts / "indexes/gallery/tables"
    folder.mkdir(parents=True)
    (folder / id).touch()
    async with connected(url) as connection:
        for name in (table_name(id), state_name(id), pictures_name(id), shards_name(id)):
            await connection.execute(f"CREATE TABLE {name} ()")
    return id


async def tables(url: str) -> int:
    async with connected(url) as connection:
        return int(await connection.fetchval("SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '^tinyclip'"))


class TestDelete:
    async def test_it_drops_the_tables_of_the_index_and_no_others(self, service: Service, index_database: str) -> None:
        await build_with_tables(service, index_database)
        async with connected(index_database) as connection:
            await connection.execute(f"CREATE TABLE tinyclip_{uuid.uuid4().hex} ()")

        await service.http.delete(GALLERY)
        await service.reconcile("indexes")

        assert (await service.http.get(GALLERY)).status_code == 404
        assert not (service.artifacts / "indexes/gallery").exists()
        assert await tables(index_database) == 1

    async def test_it_waits_while_the_tables_are_locked_and_reports_that(
        self, service: Service, index_database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(index_database_module, "LOCK_SECONDS", 0.1)
        id = await build_with_tables(service, index_database)
        async with connected(index_database) as connection, connection.transaction():
            await connection.execute(f"SELECT * FROM tinyclip_{id}")
            await service.http.delete(GALLERY)
            await service.reconcile("indexes")
            held = await service.get(GALLERY)

        await service.reconcile("indexes")

        assert (held["state"], held["message"]) == (
            "deleting", "its tables cannot be dropped yet: canceling statement due to lock timeout",
        )  # fmt: skip
        assert (await service.http.get(GALLERY)).status_code == 404
        assert await tables(index_database) == 0

    async def test_without_the_setting_it_waits_for_it(self, service: Service, start: Start, index_database: str) -> None:
        await build_with_tables(service, index_database)
        unconfigured = await start(ray=service.ray, index_database_url="")

        await unconfigured.http.delete(GALLERY)
        await unconfigured.reconcile("indexes")

        kept = await unconfigured.get(GALLERY)
        assert kept["state"] == "deleting"
        assert "TINYCLIP_INDEX_DATABASE_URL is no longer set; set it again, or remove" in kept["message"]
        await service.reconcile("indexes")
        assert (await service.http.get(GALLERY)).status_code == 404


class TestSecret:
    def test_the_embedded_ray_inherits_the_url(self, tmp_path: Path) -> None:
        environment = LocalRay(Settings(data_dir=tmp_path, index_database_url=NOWHERE))._environment()

        assert environment["TINYCLIP_INDEX_DATABASE_URL"] == NOWHERE

    def test_logs_hide_the_password(self, tmp_path: Path) -> None:
        formatter = Formatter("json", secrets=known_secrets(Settings(data_dir=tmp_path, index_database_url=NOWHERE)))

        line = formatter.format(logging.LogRecord("x", logging.INFO, "x", 1, "password very-secret of %s", (NOWHERE,), None))

        assert "very-secret" not in line

    async def test_the_doctor_checks_the_database(self, tmp_path: Path, postgres: str, index_database: str) -> None:
        with database(postgres, extension=False) as bare:
            found = [
                next(check for check in await examine(settings) if check.name == "index database")
                for settings in (Settings(data_dir=tmp_path, index_database_url=url) for url in (index_database, bare, NOWHERE))
            ]

        assert [check.result for check in found] == ["ok", "fail", "fail"]
        assert "pgvector" in found[0].message
        assert "CREATE EXTENSION vector" in found[1].hint
        assert "very-secret" not in str(found)
