"""Tokens made at the server's shell, by whoever can reach its database anyway: how a first token and a new project begin."""

from typing import Any

from pydantic import TypeAdapter, ValidationError
from tinyclip.schemas import NewToken, ProjectName, TokenPost

from tinyclip_server.database.engine import Database
from tinyclip_server.database.migrate import upgrade
from tinyclip_server.settings import Settings
from tinyclip_server.tokens import service


class BadToken(Exception):
    """What was asked for is no token; the message names the option."""


async def make(settings: Settings, *, name: str, project: str, scopes: list[str], days: int | None) -> NewToken:
    """A new token, after bringing the database to the newest revision. Raises BadToken."""
    asked: dict[str, Any] = {"name": name, "scopes": scopes, "expires_in_days": days}
    try:
        body = TokenPost.model_validate(asked)
        TypeAdapter(ProjectName).validate_python(project)
    except ValidationError as error:
        found = error.errors()[0]
        option = {"scopes": "scope", "expires_in_days": "days"}.get(str((*found["loc"], "")[0]), "name")
        where = option if found["loc"] else "project"
        raise BadToken(f"--{where}: {found['msg']} (got {found['input']!r})") from error
    await upgrade(settings.async_database_url)
    database = Database(settings.async_database_url)
    try:
        async with database.write() as session:
            return await service.create(session, project, body, by=None)
    finally:
        await database.close()
