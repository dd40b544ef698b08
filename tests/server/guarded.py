"""A service that requires tokens, tokens for it, and its routes."""

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from tinyclip.schemas import Scope, TokenPost
from tinyclip_server.tokens import service as tokens

from tests.server.service import Service, Start

ALL_BUT_METRICS = [Scope.READ, Scope.WRITE, Scope.INFER, Scope.ADMIN]


async def token(service: Service, *scopes: Scope, project: str = "default", days: int | None = 1) -> str:
    """Create a token, as `tinyclip-server create-token` does."""
    async with service.app.state.services.db.write() as session:
        body = TokenPost(name="test", scopes=list(scopes), expires_in_days=days)
        return (await tokens.create(session, project, body, by=None)).token


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def every_route(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Yield method and path template of every route of the application, the documents included."""
    for route in iter_route_contexts(app.routes):
        for method in route.methods or ():
            assert route.path is not None
            yield method, route.path


def every_request(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Yield method and path of every route, with a value for each parameter."""
    for method, path in every_route(app):
        yield method, re.sub(r"\{[^}]*\}", "nobody", path)


@pytest.fixture
async def guarded(start: Start) -> Service:
    return await start(auth="tokens", requests_per_minute=100_000)
