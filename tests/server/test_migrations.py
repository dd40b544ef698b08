"""The revisions lead to the tables that the code knows, on both databases."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from tinyclip_server.db import Database
from tinyclip_server.migrate import head, upgrade
from tinyclip_server.settings import Settings
from tinyclip_server.tables import Base

from tests.server.conftest import on_both_databases


def differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))


@on_both_databases
async def test_the_newest_revision_has_the_tables_of_the_code(database_url: str) -> None:
    url = Settings(database_url=database_url).async_database_url
    await upgrade(url)
    database = Database(url)

    async with database.engine.connect() as connection:
        found = await connection.run_sync(differences)
        current = await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())
    await database.close()

    assert found == []
    assert current == head()


@on_both_databases
async def test_upgrading_twice_is_fine(database_url: str) -> None:
    url = Settings(database_url=database_url).async_database_url

    await upgrade(url)
    await upgrade(url)
