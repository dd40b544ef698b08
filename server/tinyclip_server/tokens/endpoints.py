"""`/v1/tokens`: create, list and revoke the tokens of a project. `/v1/me`: the caller's project and scopes."""

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from tinyclip.schemas import Me, NewToken, Page, Token, TokenPost

from tinyclip_server.database.tables import TokenRow
from tinyclip_server.http.bodies import BoundedRoute
from tinyclip_server.http.callers import caller_of
from tinyclip_server.http.conditions import IfMatch, expect_match
from tinyclip_server.http.pagination import Paging
from tinyclip_server.http.resources import resource_response
from tinyclip_server.http.services import Project, ReadSession, ServicesDep, WriteSession
from tinyclip_server.tokens import repository, service

router = APIRouter(route_class=BoundedRoute, prefix="/tokens", tags=["tokens"])
me_router = APIRouter(tags=["tokens"])


@router.post("", status_code=201, response_model=NewToken)
async def create(
    body: TokenPost,
    request: Request,
    response: Response,
    session: WriteSession,
    project: Project,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> NewToken:
    """Create a token with some of the caller's scopes. The secret is in this response and nowhere else.

    Repeated with the same `Idempotency-Key`, the request creates no second token and answers 409: the secret is not stored.
    """
    created = await service.create(session, project, body, by=caller_of(request), idempotency_key=idempotency_key)
    response.headers["Cache-Control"] = "no-store"
    return created


@router.get("", response_model=Page[Token])
async def find(session: ReadSession, project: Project, paging: Paging) -> Page[Token]:
    """List the project's tokens, newest first, with revoked and expired ones."""
    rows = await repository.newest(session, project, paging.after_newest(), paging.page_size + 1)
    return paging.page(rows, service.view, lambda row: (row.created_at, row.id))


@router.get("/{token_id}", response_model=Token)
async def get(token_id: str, session: ReadSession, project: Project) -> Response:
    """Get a token."""
    return _response(await service.get(session, project, token_id))


@router.delete("/{token_id}", response_model=Token)
async def revoke(token_id: str, session: WriteSession, project: Project, if_match: IfMatch = None) -> Response:
    """Revoke a token: at once for this API, within seconds for deployments."""
    row = await service.get(session, project, token_id, lock=True)
    expect_match(if_match, service.etag(row))
    await service.revoke(session, row)
    return _response(row)


@me_router.get("/me", response_model=Me)
async def me(request: Request, services: ServicesDep, session: ReadSession) -> Me:
    """Get the caller's project and scopes."""
    caller = caller_of(request)
    row = await repository.find(session, caller.project, caller.token_id) if caller.token_id else None
    return Me(
        auth=services.settings.auth, project=caller.project, scopes=sorted(caller.scopes),
        token=None if row is None else service.view(row),
    )


def _response(row: TokenRow) -> Response:
    return resource_response(service.view(row), service.etag(row))
