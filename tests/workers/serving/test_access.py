"""Access control of a deployment, from the token digests in the artifacts store."""

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
from tinyclip_workers.serving.replica import access as access_module
from tinyclip_workers.serving.replica.access import Access

from tests.workers.student_server import serving_options

GOOD, OTHER_PROJECT, READER, EXPIRED = (new_token() for _ in range(4))


def digests() -> dict[str, TokenDigest]:
    return {
        digest(GOOD): TokenDigest(project="vision", scopes=[Scope.INFER]),
        digest(OTHER_PROJECT): TokenDigest(project="other", scopes=[Scope.ADMIN]),
        digest(READER): TokenDigest(project="vision", scopes=[Scope.READ]),
        digest(EXPIRED): TokenDigest(project="vision", scopes=[Scope.INFER], expires_at=datetime.now(UTC) - timedelta(seconds=1)),
    }


def publish(root: Path) -> None:
    """Write the list of tokens as the control plane does."""
    ArtifactsStore(str(root)).write_bytes(TOKEN_DIGESTS, TokenDigests(tokens=digests()).model_dump_json().encode())


@pytest.fixture
def options(tmp_path: Path) -> ServingOptions:
    return serving_options(tmp_path, project="vision", auth="tokens")


def request(token: str | None, path: str = "/demo/zero-shot", host: str = "server") -> Request:
    headers = [(b"host", host.encode())] + ([(b"authorization", f"Bearer {token}".encode())] if token else [])
    return Request({"type": "http", "method": "POST", "path": path, "root_path": "/demo", "headers": headers,
                    "query_string": b"", "scheme": "http", "server": ("server", 80)})


async def rejection(access: Access, request: Request) -> tuple[int, str]:
    with pytest.raises(ProblemError) as rejected:
        await access.check(request)
    return rejected.value.problem.status, rejected.value.problem.code


async def is_accepted(access: Access, request: Request) -> bool:
    try:
        await access.check(request)
    except ProblemError:
        return False
    return True


async def test_a_token_of_the_project_with_scope_infer_is_accepted(options: ServingOptions, tmp_path: Path) -> None:
    publish(tmp_path)

    assert await is_accepted(Access(options), request(GOOD))


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (None, (401, "token_required")),
        ("tc_nonsense", (401, "token_malformed")),
        (new_token(), (401, "token_unknown")),
        (EXPIRED, (401, "token_expired")),
        (READER, (403, "forbidden")),
        (OTHER_PROJECT, (404, "no_such_deployment")),
    ],
    ids=["none", "malformed", "unknown", "expired", "other scope", "other project"],
)
async def test_other_tokens_are_rejected(
    options: ServingOptions, tmp_path: Path, token: str | None, expected: tuple[int, str]
) -> None:
    publish(tmp_path)

    assert await rejection(Access(options), request(token)) == expected


async def test_healthz_is_open_and_no_similar_path(options: ServingOptions) -> None:
    access = Access(options)

    await access.check(request(None, "/demo/healthz"))
    for path, host in (("/demo/zero-shot", "server/healthz?"), ("/demo/x/healthz", "server"), ("/demo/healthz/", "server")):
        assert await rejection(access, request(None, path, host)) == (401, "token_required")


async def test_without_a_list_every_token_is_rejected(options: ServingOptions) -> None:
    assert await rejection(Access(options), request(GOOD)) == (401, "token_unknown")


async def test_a_revoked_token_is_rejected_after_the_list_was_read_again(options: ServingOptions, tmp_path: Path) -> None:
    publish(tmp_path)
    access = Access(options)
    await access.check(request(GOOD))
    ArtifactsStore(str(tmp_path)).write_bytes(TOKEN_DIGESTS, TokenDigests(tokens={}).model_dump_json().encode())

    await access.check(request(GOOD))
    access.refresh()

    assert await rejection(access, request(GOOD)) == (401, "token_unknown")


async def test_the_last_list_is_used_for_a_while_after_a_failed_read(
    options: ServingOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path)
    access = Access(options)
    await access.check(request(GOOD))
    (tmp_path / TOKEN_DIGESTS).write_bytes(b"{ torn")
    start = monotonic()
    access.refresh()

    monkeypatch.setattr(access_module, "monotonic", lambda: start + access_module.MAX_STALE_SECONDS - 10)
    await access.check(request(GOOD))
    monkeypatch.setattr(access_module, "monotonic", lambda: start + access_module.MAX_STALE_SECONDS + 10)

    assert await rejection(access, request(GOOD)) == (503, "tokens_unavailable")


async def test_without_auth_no_token_is_needed(options: ServingOptions) -> None:
    assert await is_accepted(Access(options.model_copy(update={"auth": "none"})), request(None))
