"""`Idempotency-Key`: a repeated POST returns the first response instead of having a second effect.

The key is reserved in a transaction of its own before the work, and the response is stored in the transaction of the effect:
after a crash there is either the effect with its response, or neither.
"""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from sqlalchemy import ColumnElement, delete, update
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.bounded_json import INLINE_BYTES

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import IdempotencyRow
from tinyclip_server.http.bodies import whole_body
from tinyclip_server.http.services import Project, Services, ServicesDep
from tinyclip_server.problems import Conflict, InvalidInput

Make = Callable[[], Awaitable[tuple[BaseModel, dict[str, str]]]]
"""Does the work in the request's session and returns the body and the headers of the response."""
RELEASE_SECONDS = 5.0
"""Time to release the key of a request that has failed."""


class IdempotentRequest:
    """One POST, answered by doing its work or with the stored response to the same request."""

    def __init__(
        self, services: Services, project: str, key: str | None, fingerprint: str, *, slowest_seconds: float | None = None
    ) -> None:
        """Create a request; `slowest_seconds` limits its wait and each of two tries, by default the planner's timeout."""
        self._services, self._project, self._key, self._fingerprint = services, project, key, fingerprint
        self._slowest_seconds = slowest_seconds or services.settings.planner_timeout_seconds

    async def respond(self, session: AsyncSession, status: int, make: Make) -> Response:
        if self._key is None:
            return _response(status, *_rendered(*await make()))
        taken_at = now()
        stored = await self._reserve(self._key, taken_at)
        if stored is not None:
            return stored
        try:
            body, headers = _rendered(*await make())
            await self._store(session, self._key, taken_at, status, body, headers)
        except BaseException:
            await session.rollback()
            with contextlib.suppress(SQLAlchemyError, OSError):  # the database may be away; then the reservation expires
                async with asyncio.timeout(RELEASE_SECONDS):
                    await self._release(self._key, taken_at)
            raise
        return _response(status, body, headers)

    async def _reserve(self, key: str, at: datetime) -> Response | None:
        """Reserve the key and return None, or return the stored response. Raises Conflict while another request holds it."""
        settings = self._services.settings
        async with self._services.db.write() as session:
            expired = at - timedelta(hours=settings.idempotency_hours)
            abandoned = at - timedelta(seconds=3 * self._slowest_seconds + 30)
            await session.execute(delete(IdempotencyRow).where(IdempotencyRow.created_at < expired))
            await session.execute(
                delete(IdempotencyRow).where(
                    IdempotencyRow.project == self._project, IdempotencyRow.key == key,
                    IdempotencyRow.status.is_(None), IdempotencyRow.created_at < abandoned,
                )
            )
            insert = pg_insert if self._services.db.engine.dialect.name == "postgresql" else sqlite_insert
            new = insert(IdempotencyRow).values(
                project=self._project, key=key, fingerprint=self._fingerprint, headers={}, created_at=at
            )
            done = await session.execute(new.on_conflict_do_nothing().returning(IdempotencyRow.key))
            if done.first() is not None:
                return None
            row = await session.get(IdempotencyRow, (self._project, key))
        if row is None or (row.fingerprint == self._fingerprint and row.status is None):
            raise Conflict("a request with this Idempotency-Key is still being answered; send it again in a moment",
                           code="idempotency_in_flight", retry_after=1)
        if row.fingerprint != self._fingerprint:
            raise InvalidInput.field(
                "/Idempotency-Key", key, "this key was used for a different request; use a new key", code="idempotency_key_reused"
            )
        return _response(row.status or 200, row.body or "", {**row.headers, "Idempotent-Replayed": "true"})

    async def _store(
        self, session: AsyncSession, key: str, taken_at: datetime, status: int, body: str, headers: dict[str, str]
    ) -> None:
        answered = update(IdempotencyRow).where(*self._own_row(key, taken_at)).values(status=status, body=body, headers=headers)
        if (await session.execute(answered.returning(IdempotencyRow.key))).first() is None:
            raise Conflict("this request took so long that its Idempotency-Key has expired; send it again",
                           code="idempotency_in_flight")

    async def _release(self, key: str, taken_at: datetime) -> None:
        async with self._services.db.write() as session:
            await session.execute(delete(IdempotencyRow).where(*self._own_row(key, taken_at)))

    def _own_row(self, key: str, taken_at: datetime) -> tuple[ColumnElement[bool], ...]:
        return (IdempotencyRow.project == self._project, IdempotencyRow.key == key, IdempotencyRow.created_at == taken_at)


IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]


def fingerprint(request: Request, body: bytes) -> str:
    """Return a digest that equal requests share; `body` may itself be the digest of a large body.

    Large bodies are equal if their bytes are: to write them in one form would block the event loop.
    """
    if len(body) <= INLINE_BYTES:  # equal JSON documents are equal requests, however they are written
        with contextlib.suppress(ValueError, RecursionError):
            body = json.dumps(json.loads(body), sort_keys=True).encode()
    target = f"{request.method} {request.url.path}?{request.url.query}\n"
    return hashlib.sha256(target.encode() + body).hexdigest()


async def _idempotent_request(
    request: Request,
    services: ServicesDep,
    project: Project,
    idempotency_key: IdempotencyKey = None,
) -> IdempotentRequest:
    digest = "" if idempotency_key is None else fingerprint(request, await whole_body(request))
    return IdempotentRequest(services, project, idempotency_key, digest)


Idempotent = Annotated[IdempotentRequest, Depends(_idempotent_request)]


def _rendered(body: BaseModel, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
    return body.model_dump_json(), headers


def _response(status: int, body: str, headers: dict[str, str]) -> Response:
    return Response(body, status, headers, media_type="application/json")
