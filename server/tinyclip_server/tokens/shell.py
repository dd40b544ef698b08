"""Tokens created by the command `tinyclip-server create-token`: the first token, and those of new projects."""

import asyncio
from typing import Any

from pydantic import TypeAdapter, ValidationError
from tinyclip.schemas import NewToken, ProjectName, TokenPost

from tinyclip_server.database.engine import Database
from tinyclip_server.database.locks import sqlite_file
from tinyclip_server.database.migrate import expect_head, upgrade
from tinyclip_server.settings import Settings
from tinyclip_server.tokens import service


class InvalidTokenOption(Exception):
    """An invalid option of the command, which the message names."""


async def create_token(settings: Settings, *, name: str, project: str, scopes: list[str], days: int | None) -> NewToken:
    """Create a token in a database of the newest revision; a SQLite file that does not exist is created.

    Raises InvalidTokenOption, WrongRevision and CannotMigrate.
    """
    options: dict[str, Any] = {"name": name, "scopes": scopes, "expires_in_days": days}
    try:
        body = TokenPost.model_validate(options)
        TypeAdapter(ProjectName).validate_python(project)
    except ValidationError as error:
        found = error.errors()[0]
        option = {"scopes": "scope", "expires_in_days": "days"}.get(str((*found["loc"], "")[0]), "name")
        where = option if found["loc"] else "project"
        raise InvalidTokenOption(f"--{where}: {found['msg']} (got {found['input']!r})") from error
    file = sqlite_file(settings.async_database_url)
    if file is not None and not await asyncio.to_thread(file.exists):
        await upgrade(settings.async_database_url)
    await expect_head(settings.async_database_url)
    database = Database(settings.async_database_url)
    try:
        async with database.write() as session:
            return await service.create(session, project, body, by=None)
    finally:
        await database.close()
