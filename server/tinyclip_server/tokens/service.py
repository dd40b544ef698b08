"""Operations on tokens. Each function works in the caller's transaction and only flushes."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import NewToken, Scope, Token, TokenPost
from tinyclip.token_format import digest, hint, is_well_formed, new_token

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import TokenRow
from tinyclip_server.http.callers import Caller
from tinyclip_server.http.resources import new_id
from tinyclip_server.problems import Conflict, Forbidden, NotFound, Unauthorized
from tinyclip_server.tokens import repository

SHELL = "shell"
"""The creator of a token that was created by the command `create-token`."""


def bearer(header: str | None) -> str:
    """Return the token of an `Authorization` header. Raises Unauthorized if it is missing or malformed."""
    kind, _, token = (header or "").strip().partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise Unauthorized("a token is required: send Authorization: Bearer tc_…", code="token_required")
    if not is_well_formed(token.strip()):
        raise Unauthorized("the token is malformed: a character is missing or wrong; copy it again", code="token_malformed")
    return token.strip()


async def caller(session: AsyncSession, token: str) -> Caller:
    """Return the caller that a token identifies. Raises Unauthorized if it is unknown, revoked or expired."""
    row = await repository.by_digest(session, digest(token))
    if row is None:
        raise Unauthorized("this server does not know the token; use one that it created", code="token_unknown")
    if row.revoked_at is not None:
        raise Unauthorized(f"token {row.id} was revoked; ask an admin of {row.project} for another", code="token_revoked")
    if _has_expired(row):
        raise Unauthorized(f"token {row.id} has expired; ask an admin of {row.project} for another", code="token_expired")
    return Caller(row.project, frozenset(map(Scope, row.scopes)), row.id)


async def create(
    session: AsyncSession, project: str, body: TokenPost, *, by: Caller | None, idempotency_key: str | None = None
) -> NewToken:
    """Create a token, whose secret is returned and not stored. Raises Forbidden for a scope that the caller lacks, Conflict."""
    missing = [scope for scope in body.scopes if by is not None and not by.may(scope)]
    if missing:
        raise Forbidden(f"your token lacks the scope {missing[0]}, so it cannot create a token with it", code="scope_not_held")
    if idempotency_key is not None:
        earlier = await repository.by_idempotency_key(session, project, idempotency_key)
        if earlier is not None:
            raise Conflict(
                f"this request has already created token {earlier.id}, whose secret is shown once; if the response was lost, "
                "revoke the token and create another with a new Idempotency-Key", code="token_shown_once",
            )
    secret, created_at = new_token(), now()
    row = TokenRow(
        id=new_id("tok"), project=project, name=body.name,
        digest=digest(secret), hint=hint(secret), scopes=sorted(set(body.scopes)),
        created_by=(by.token_id if by else None) or SHELL, created_at=created_at, revoked_at=None,
        idempotency_key=idempotency_key,
        expires_at=None if body.expires_in_days is None else created_at + timedelta(days=body.expires_in_days),
    )
    session.add(row)
    await session.flush()
    return NewToken(**view(row).model_dump(), token=secret)


async def get(session: AsyncSession, project: str, token_id: str, *, lock: bool = False) -> TokenRow:
    """Return a token. Raises NotFound."""
    row = await repository.find(session, project, token_id, lock=lock)
    if row is None:
        raise NotFound(f"there is no token {token_id}", code="no_such_token")
    return row


async def revoke(session: AsyncSession, row: TokenRow) -> None:
    """Revoke a token; it stays in the list. Repeated, it is a no-op."""
    if row.revoked_at is None:
        row.revoked_at = now()
    await session.flush()


def view(row: TokenRow) -> Token:
    return Token(
        id=row.id, name=row.name, project=row.project, scopes=[Scope(scope) for scope in row.scopes], hint=row.hint,
        state="revoked" if row.revoked_at else "expired" if _has_expired(row) else "active",
        created_by=row.created_by, created_at=row.created_at, expires_at=row.expires_at, revoked_at=row.revoked_at,
    )


def etag(row: TokenRow) -> str:
    return "revoked" if row.revoked_at else "live"


def _has_expired(row: TokenRow) -> bool:
    return row.expires_at is not None and row.expires_at <= now()
