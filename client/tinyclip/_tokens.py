"""Tokens: who may do what in a project. And whom the server takes us for."""

from collections.abc import AsyncIterator, Iterator, Sequence

from tinyclip._calls import AsyncResource, Call, Resource, as_model, async_method, once, path, sync_method
from tinyclip._pages import every, every_async
from tinyclip.schemas import Me, NewToken, Page, Token


def page(*, page_size: int | None = None, page_token: str | None = None) -> Call[Page[Token]]:
    """One page of the project's tokens, newest first."""
    return Call("GET", path("tokens"), as_model(Page[Token]), query={"page_size": page_size, "page_token": page_token})


def get(token_id: str) -> Call[Token]:
    """One token, without its secret."""
    return Call("GET", path("tokens", token_id), as_model(Token))


def create(
    name: str, scopes: Sequence[str], *, expires_in_days: int | None = 90, idempotency_key: str | None = None
) -> Call[NewToken]:
    """Makes a token with scopes that the caller's own has. Its secret is in this answer and can never be asked for again."""
    body = {"name": name, "scopes": list(scopes), "expires_in_days": expires_in_days}
    return Call("POST", path("tokens"), as_model(NewToken), body=body, headers=once(idempotency_key))


def revoke(token_id: str) -> Call[Token]:
    """Ends a token: at the server at once, at deployments within ten seconds."""
    return Call("DELETE", path("tokens", token_id), as_model(Token))


def me() -> Call[Me]:
    """The caller's project and scopes."""
    return Call("GET", path("me"), as_model(Me))


class Tokens(Resource):
    """`client.tokens`."""

    page = sync_method(page)
    get = sync_method(get)
    create = sync_method(create)
    revoke = sync_method(revoke)
    me = sync_method(me)

    def list(self) -> Iterator[Token]:
        """All tokens of the project, revoked and expired ones too."""
        return every(self._transport, lambda token: page(page_token=token))


class AsyncTokens(AsyncResource):
    """`async_client.tokens`; see `Tokens`."""

    page = async_method(page)
    get = async_method(get)
    create = async_method(create)
    revoke = async_method(revoke)
    me = async_method(me)

    def list(self) -> AsyncIterator[Token]:
        """All tokens of the project; see `Tokens.list`."""
        return every_async(self._transport, lambda token: page(page_token=token))
