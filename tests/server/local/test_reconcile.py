"""The procedure of docs/operations.md: control plane's database, artifacts, index database, in this order, and `reconcile`."""

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest
from tinyclip.index_database import VARIABLE
from tinyclip_server.database.migrate import head
from tinyclip_server.local.reconcile import CannotReconcile, reconcile_service
from tinyclip_server.orchestration.installation import bind
from tinyclip_server.settings import Settings

from tests.postgres import database, program
from tests.s3 import BUCKET, bucket_files, s3_server
from tests.server.local.one_of_each import added, answers, hits, service_with_one_of_each
from tests.server.service import Start

ON_POSTGRESQL = pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)


@ON_POSTGRESQL
async def test_a_restored_service_gives_the_same_answers(
    start: Start, database_url: str, index_database: str, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, secret = await service_with_one_of_each(start, store="pgvector", index_database_url=index_database)
    before = await answers(service, secret)

    _dump(database_url, tmp_path / "control.dump")
    shutil.copytree(service.artifacts, tmp_path / "copy")
    _dump(index_database, tmp_path / "indexes.dump")
    shutil.rmtree(service.artifacts)

    with database(postgres, extension=False) as control, database(postgres) as indexes:
        _restore(control, tmp_path / "control.dump")
        _restore(indexes, tmp_path / "indexes.dump")
        _use_index_database(monkeypatch, indexes)
        new = {"database_url": control, "index_database_url": indexes, "artifacts": str(tmp_path / "copy")}
        outcome = await reconcile_service(Settings(data_dir=tmp_path, **new))
        again = await start(auth="tokens", data_roots=["/data"], **new)
        await bind(again.app.state.services)

        assert (outcome.changed, outcome.unknown, outcome.missing) == ([], [], [])
        assert await answers(again, secret) == before
        assert len(before["hits"]) == 7


@ON_POSTGRESQL
async def test_updates_between_the_dumps_keep_their_numbers(
    start: Start, database_url: str, index_database: str, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, _ = await service_with_one_of_each(start, store="pgvector", index_database_url=index_database)
    _dump(database_url, tmp_path / "control.dump")
    shutil.copytree(service.artifacts, tmp_path / "copy")
    await added(service, 2, first=50)
    _dump(index_database, tmp_path / "indexes.dump")

    with database(postgres, extension=False) as control, database(postgres) as indexes:
        _restore(control, tmp_path / "control.dump")
        _restore(indexes, tmp_path / "indexes.dump")
        _use_index_database(monkeypatch, indexes)
        new = {"database_url": control, "index_database_url": indexes, "artifacts": str(tmp_path / "copy")}
        outcome = await reconcile_service(Settings(data_dir=tmp_path, **new))
        again = await start(**new)
        await added(again, 1, first=60)

        assert outcome.changed == ["index gallery: 1 updates that the database did not know are in it"]
        assert {"v50", "v51", "v60"} <= {hit["id"] for hit in hits(again)}


async def test_the_artifacts_of_another_database_are_taken_over_only_on_request(start: Start, tmp_path: Path) -> None:
    service = await start()
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "installation.json").write_text('{"id": "i", "owner": "o", "database": "postgresql://db/lost"}')

    with pytest.raises(CannotReconcile, match=r"belongs to the database postgresql://db/lost, .* reconcile --take-over"):
        await reconcile_service(service.settings)
    await reconcile_service(service.settings, take_over=True)

    await bind(service.app.state.services)


async def test_tables_that_were_not_restored_are_named(
    start: Start, index_database: str, postgres: str, tmp_path: Path
) -> None:
    service, _ = await service_with_one_of_each(start, store="pgvector", index_database_url=index_database)
    with database(postgres) as empty:
        settings = service.settings.model_copy(update={"index_database_url": empty})
        outcome = await reconcile_service(settings)

    assert len(outcome.missing) == 1
    assert outcome.missing[0].startswith("tables tinyclip_")
    assert outcome.missing[0].endswith("of index gallery")


async def test_artifacts_on_s3_are_compared_with_the_database(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, _ = await service_with_one_of_each(start)
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        files = bucket_files(environment)
        await asyncio.to_thread(files.put, f"{service.artifacts}/", f"{BUCKET}/copy/", recursive=True)
        settings = service.settings.model_copy(update={"artifacts": f"s3://{BUCKET}/copy"})
        complete = await reconcile_service(settings)
        [lost] = [path for path in await asyncio.to_thread(files.find, f"{BUCKET}/copy") if path.endswith("items.sqlite")][:1]
        await asyncio.to_thread(files.rm, lost)
        incomplete = await reconcile_service(settings)

    assert (complete.changed, complete.unknown, complete.missing) == ([], [], [])
    assert incomplete.missing == [lost.removeprefix(f"{BUCKET}/copy/")]


async def test_a_database_that_is_not_migrated_is_refused(postgres: str, tmp_path: Path) -> None:
    with database(postgres, extension=False) as empty, pytest.raises(CannotReconcile, match=f"needs revision {head()}"):
        await reconcile_service(Settings(data_dir=tmp_path, database_url=empty))


def _dump(url: str, file: Path) -> None:
    subprocess.run([program("pg_dump"), "--format=custom", "--file", file, url], check=True, capture_output=True)


def _restore(url: str, file: Path) -> None:
    command = [program("pg_restore"), "--no-owner", "--no-privileges", "--exit-on-error", "--dbname", url, file]
    # The extension and its comment belong to a superuser and are there already.
    listed = subprocess.run([program("pg_restore"), "--list", file], check=True, capture_output=True, text=True).stdout
    file.with_suffix(".list").write_text("\n".join(line for line in listed.splitlines() if "EXTENSION" not in line))
    subprocess.run([*command, "--use-list", file.with_suffix(".list")], check=True, capture_output=True)


def _use_index_database(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    from tinyclip_workers.retrieval.postgres import database as index_module

    if index_module._pool is not None:
        index_module._pool.close()
    monkeypatch.setenv(VARIABLE, url)
    monkeypatch.setattr(index_module, "_pool", None)
