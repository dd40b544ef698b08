"""Indexes that live in PostgreSQL, as the server sees them: what is refused, what jobs are told, what a deletion takes along."""

import contextlib
import logging
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.local.doctor import examine
from tinyclip_server.local.ray import LocalRay
from tinyclip_server.logs import Formatter, known_secrets
from tinyclip_server.orchestration.indexes import reconcile
from tinyclip_server.settings import Settings

from tests.postgres import database
from tests.server.index_builds import finished, request, tell
from tests.server.service import Service, Start

MODEL = "emoji-half"
NOWHERE = "postgresql://me:very-secret@127.0.0.1:1/indexes"
BODY = {"model": f"{MODEL}@1", "source": {"shards": "s3://bucket/{0..3}.tar"}, "store": "pgvector"}


@pytest.fixture
async def service(start: Start, index_database: str) -> Service:
    service = await start(index_database_url=index_database)
    await service.made(MODEL)
    return service


async def put(service: Service, **changes: Any) -> Any:
    return await service.http.put("/v1/indexes/gallery", json={**BODY, **changes})


async def round_(service: Service) -> None:
    await reconcile(service.app.state.services)


@contextlib.asynccontextmanager
async def asked(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


class TestPut:
    async def test_the_job_is_told_the_store_and_never_the_url(self, service: Service, index_database: str) -> None:
        answer = await put(service)
        await round_(service)

        assert (answer.status_code, answer.json()["store"]) == (202, "pgvector")
        assert request(service)["store"] == "pgvector"
        submission = service.ray.submissions[-1]
        assert "postgresql" not in str(request(service)) + service.ray.entrypoints[submission]

    async def test_files_are_the_default(self, service: Service) -> None:
        answer = await service.http.put("/v1/indexes/gallery", json={key: BODY[key] for key in ("model", "source")})
        await round_(service)

        assert (answer.json()["store"], request(service)["store"]) == ("files", "files")

    async def test_in_another_store_it_is_another_build(self, service: Service) -> None:
        await put(service, store="files")
        await round_(service)
        first = request(service)["build"]

        await put(service)
        await round_(service)

        assert request(service)["build"] > first

    async def test_without_a_database_it_is_refused(self, start: Start) -> None:
        service = await start()
        await service.made(MODEL)

        answer = await put(service)

        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (422, "index_store_not_configured")
        assert problem["errors"][0]["pointer"] == "/store"
        assert "set TINYCLIP_INDEX_DATABASE_URL for the server and on every node" in problem["detail"]

    async def test_without_the_extension_it_is_refused(self, start: Start, postgres: str) -> None:
        with database(postgres, extension=False) as url:
            service = await start(index_database_url=url)
            await service.made(MODEL)

            answer = await put(service)

        assert (answer.status_code, answer.json()["code"]) == (422, "index_store_unfit")
        assert "has no extension vector; let a superuser run CREATE EXTENSION vector in it" in answer.json()["detail"]

    async def test_while_the_database_is_away_it_can_be_tried_again(self, start: Start) -> None:
        service = await start(index_database_url=NOWHERE)
        await service.made(MODEL)

        answer = await put(service)

        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
        assert "very-secret" not in answer.text

    @pytest.mark.parametrize("url", ["mysql://me:very-secret@h/x", "postgresql://me:very-secret@h:port/x"])
    async def test_what_is_no_url_is_not_repeated(self, start: Start, url: str) -> None:
        service = await start(index_database_url=url)
        await service.made(MODEL)

        answer = await put(service)

        assert answer.status_code == 503
        assert "very-secret" not in answer.text
        assert "is not a URL like postgresql://USER:PASSWORD@HOST/NAME" in answer.json()["detail"]


async def with_tables(service: Service, url: str) -> str:
    """A ready index, and tables as its job would have made them."""
    await put(service)
    await round_(service)
    tell(service, finished(10))
    await round_(service)
    service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.SUCCEEDED
    id = uuid.uuid4().hex
    folder = service.artifacts / "indexes/gallery/tables"
    folder.mkdir(parents=True)
    (folder / id).touch()
    async with asked(url) as connection:
        await connection.execute(f"CREATE TABLE tinyclip_{id} (); CREATE TABLE tinyclip_{id}_state ()")
    return id


async def tables(url: str) -> int:
    async with asked(url) as connection:
        return int(await connection.fetchval("SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '^tinyclip'"))


class TestDelete:
    async def test_drops_its_tables_and_no_others(self, service: Service, index_database: str) -> None:
        await with_tables(service, index_database)
        async with asked(index_database) as connection:
            await connection.execute(f"CREATE TABLE tinyclip_{uuid.uuid4().hex} ()")

        await service.http.delete("/v1/indexes/gallery")
        await round_(service)

        assert (await service.http.get("/v1/indexes/gallery")).status_code == 404
        assert not (service.artifacts / "indexes/gallery").exists()
        assert await tables(index_database) == 1

    async def test_waits_while_somebody_holds_them_and_says_so(self, service: Service, index_database: str) -> None:
        id = await with_tables(service, index_database)
        async with asked(index_database) as connection, connection.transaction():
            await connection.execute(f"SELECT * FROM tinyclip_{id}")
            await service.http.delete("/v1/indexes/gallery")
            await round_(service)
            held = (await service.http.get("/v1/indexes/gallery")).json()

        await round_(service)

        assert (held["state"], held["message"]) == (
            "deleting", "its tables cannot be dropped yet: canceling statement due to lock timeout",
        )  # fmt: skip
        assert (await service.http.get("/v1/indexes/gallery")).status_code == 404
        assert await tables(index_database) == 0

    async def test_without_the_setting_it_waits_for_it(self, service: Service, start: Start, index_database: str) -> None:
        await with_tables(service, index_database)
        forgetful = await start(ray=service.ray, index_database_url="")

        await forgetful.http.delete("/v1/indexes/gallery")
        await round_(forgetful)

        kept = (await forgetful.http.get("/v1/indexes/gallery")).json()
        assert kept["state"] == "deleting"
        assert "TINYCLIP_INDEX_DATABASE_URL is no longer set; set it again, or remove" in kept["message"]
        await round_(service)
        assert (await service.http.get("/v1/indexes/gallery")).status_code == 404


class TestSecret:
    def test_an_embedded_ray_inherits_it(self, tmp_path: Path) -> None:
        told = LocalRay(Settings(data_dir=tmp_path, index_database_url=NOWHERE))._environment()

        assert told["TINYCLIP_INDEX_DATABASE_URL"] == NOWHERE

    def test_logs_hide_its_password(self, tmp_path: Path) -> None:
        formatter = Formatter("json", secrets=known_secrets(Settings(data_dir=tmp_path, index_database_url=NOWHERE)))

        line = formatter.format(logging.LogRecord("x", logging.INFO, "x", 1, "password very-secret of %s", (NOWHERE,), None))

        assert "very-secret" not in line

    async def test_the_doctor_looks_at_it(self, tmp_path: Path, postgres: str, index_database: str) -> None:
        with database(postgres, extension=False) as bare:
            found = [
                next(check for check in await examine(settings) if check.name == "index database")
                for settings in (Settings(data_dir=tmp_path, index_database_url=url) for url in (index_database, bare, NOWHERE))
            ]

        assert [check.result for check in found] == ["ok", "fail", "fail"]
        assert "pgvector" in found[0].message
        assert "CREATE EXTENSION vector" in found[1].hint
        assert "very-secret" not in str(found)
