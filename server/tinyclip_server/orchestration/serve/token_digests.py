"""Publishes the tokens that deployments accept in the artifacts store, so that they work while no server runs."""

from tinyclip.artifacts.documents import TokenDigest, TokenDigests
from tinyclip.artifacts.paths import TOKEN_DIGESTS
from tinyclip.schemas import Scope

from tinyclip_server.database.engine import now
from tinyclip_server.http.services import Services
from tinyclip_server.orchestration.age import Age
from tinyclip_server.tokens import repository

MAX_AGE_SECONDS = 5.0
"""Age of the tokens at which they are read again instead of being published."""


async def publish(services: Services) -> None:
    """Write the file if it differs from the database.

    It is read each time, because another server may have written an older state than this one has seen; and before the database,
    so that a server that was suspended meanwhile does not publish a token that was revoked.
    """
    if services.settings.auth == "none":
        return
    published, age = await services.store.read_if_exists(TOKEN_DIGESTS), Age()
    async with services.db.read() as session:
        rows = await repository.usable(session, now())
    tokens = {
        row.digest: TokenDigest(project=row.project, scopes=[Scope(scope) for scope in row.scopes], expires_at=row.expires_at)
        for row in rows
        if Scope.INFER.is_granted_by(map(Scope, row.scopes))
    }
    wanted = TokenDigests(tokens=tokens).model_dump_json().encode()
    if published != wanted and age.seconds() < MAX_AGE_SECONDS:
        await services.store.write_bytes(TOKEN_DIGESTS, wanted)
