"""Who may ask a deployment: read from the store, not from the server."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

import pytest
from starlette.requests import Request
from tinyclip.artifacts.documents import TokenDigest, TokenDigests
from tinyclip.artifacts.paths import TOKEN_DIGESTS
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import Scope
from tinyclip.token_format import digest, new_token
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import ProblemError
from tinyclip_workers.serving.replica import access
from tinyclip_workers.serving.replica.access import Access

GOOD, THEIRS, READER, OLD = (new_token() for _ in range(4))


def publish(root: Path, **changes: TokenDigest | None) -> None:
    """The list as the control plane writes it."""
    tokens = {
        digest(GOOD): TokenDigest(project="vision", scopes=[Scope.INFER]),
        digest(THEIRS): TokenDigest(project="other", scopes=[Scope.ADMIN]),
        digest(READER): TokenDigest(project="vision", scopes=[Scope.READ]),
        digest(OLD): TokenDigest(project="vision", scopes=[Scope.INFER], expires_at=datetime.now(UTC) - timedelta(seconds=1)),
    }
    ArtifactsStore(str(root)).write_bytes(TOKEN_DIGESTS, TokenDigests(tokens=tokens).model_dump_json().encode())


@pytest.fixture
def options(tmp_path: Path) -> ServingOptions:
    return ServingOptions(
        engine="torch",
        name="demo", model="m@1", model_uri="unused", artifacts=str(tmp_path), project="vision", auth="tokens"
    )


def request(token: str | None, path: str = "/demo/zero-shot", host: str = "server") -> Request:
    headers = [(b"host", host.encode())] + ([(b"authorization", f"Bearer {token}".encode())] if token else [])
    return Request({"type": "http", "method": "POST", "path": path, "root_path": "/demo", "headers": headers,
                    "query_string": b"", "scheme": "http", "server": ("server", 80)})


async def refused(gate: Access, asked: Request) -> tuple[int, str]:
    with pytest.raises(ProblemError) as refusal:
        await gate.check(asked)
    return refusal.value.problem.status, refusal.value.problem.code


async def let_in(gate: Access, asked: Request) -> bool:
    try:
        await gate.check(asked)
    except ProblemError:
        return False
    return True


async def test_a_token_of_the_project_with_infer_is_let_in(options: ServingOptions, tmp_path: Path) -> None:
    publish(tmp_path)

    assert await let_in(Access(options), request(GOOD))


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (None, (401, "token_required")),
        ("tc_nonsense", (401, "token_malformed")),
        (new_token(), (401, "token_unknown")),
        (OLD, (401, "token_expired")),
        (READER, (403, "forbidden")),
        (THEIRS, (404, "no_such_deployment")),
    ],
)
async def test_others_are_not(options: ServingOptions, tmp_path: Path, token: str | None, expected: tuple[int, str]) -> None:
    publish(tmp_path)

    assert await refused(Access(options), request(token)) == expected


async def test_healthz_is_open_and_nothing_that_looks_like_it(options: ServingOptions) -> None:
    gate = Access(options)

    await gate.check(request(None, "/demo/healthz"))
    for path, host in (("/demo/zero-shot", "server/healthz?"), ("/demo/x/healthz", "server"), ("/demo/healthz/", "server")):
        assert await refused(gate, request(None, path, host)) == (401, "token_required")


async def test_a_missing_list_lets_nobody_in(options: ServingOptions) -> None:
    assert await refused(Access(options), request(GOOD)) == (401, "token_unknown")


async def test_a_revoked_token_is_refused_once_the_list_was_read_again(
    options: ServingOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path)
    gate = Access(options)
    await gate.check(request(GOOD))
    ArtifactsStore(str(tmp_path)).write_bytes(TOKEN_DIGESTS, TokenDigests(tokens={}).model_dump_json().encode())

    await gate.check(request(GOOD))
    later = monotonic() + access.REFRESH_SECONDS
    monkeypatch.setattr(access, "monotonic", lambda: later)

    assert await refused(gate, request(GOOD)) == (401, "token_unknown")


async def test_a_store_that_cannot_be_read_is_borne_for_a_while(
    options: ServingOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path)
    gate = Access(options)
    await gate.check(request(GOOD))
    (tmp_path / TOKEN_DIGESTS).write_bytes(b"{ torn")
    start = monotonic()

    monkeypatch.setattr(access, "monotonic", lambda: start + access.MAX_STALE_SECONDS - 10)
    await gate.check(request(GOOD))
    monkeypatch.setattr(access, "monotonic", lambda: start + access.MAX_STALE_SECONDS + 10)

    assert await refused(gate, request(GOOD)) == (503, "tokens_unavailable")


async def test_without_auth_everybody_is_let_in(options: ServingOptions) -> None:
    assert await let_in(Access(options.model_copy(update={"auth": "none"})), request(None))
