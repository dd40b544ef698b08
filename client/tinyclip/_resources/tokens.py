"""Tokens of a project, and the identity of the caller."""

from collections.abc import AsyncGenerator, Sequence

from tinyclip._http.calls import Call, as_model, idempotency_header, path
from tinyclip._http.methods import AsyncResource, Resource, ResourceMethods, iteration, method
from tinyclip.schemas import Me, NewToken, Page, Token


def page(*, page_size: int | None = None, page_token: str | None = None) -> Call[Page[Token]]:
    """Return one page of the project's tokens, newest first."""
    return Call("GET", path("tokens"), as_model(Page[Token]), query={"page_size": page_size, "page_token": page_token})


def get(token_id: str) -> Call[Token]:
    """Return one token, without its secret."""
    return Call("GET", path("tokens", token_id), as_model(Token))


def create(
    name: str, scopes: Sequence[str], *, expires_in_days: int | None = 90, idempotency_key: str | None = None
) -> Call[NewToken]:
    """Create a token with scopes that the caller's own has. Only this response holds its secret."""
    body = {"name": name, "scopes": list(scopes), "expires_in_days": expires_in_days}
    return Call("POST", path("tokens"), as_model(NewToken), body=body, headers=idempotency_header(idempotency_key))


def revoke(token_id: str) -> Call[Token]:
    """Revoke a token: immediately at the server, within ten seconds at deployments."""
    return Call("DELETE", path("tokens", token_id), as_model(Token))


def me() -> Call[Me]:
    """Return the caller's project and scopes."""
    return Call("GET", path("me"), as_model(Me))


class TokenMethods(ResourceMethods):
    page = method(page)
    get = method(get)
    create = method(create)
    revoke = method(revoke)
    me = method(me)

    @iteration
    def list(self) -> AsyncGenerator[Token, None]:
        """Iterate over all tokens of the project, including revoked and expired ones."""
        return self._items(lambda token: page(page_token=token))


class Tokens(TokenMethods, Resource):
    """`client.tokens`."""


class AsyncTokens(TokenMethods, AsyncResource):
    """`async_client.tokens`."""
