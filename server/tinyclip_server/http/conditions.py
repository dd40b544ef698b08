"""`ETag`, `If-Match` and `If-None-Match`."""

from typing import Annotated

from fastapi import Header
from starlette.requests import Request

from tinyclip_server.problems import StaleWrite

IfMatch = Annotated[str | None, Header()]
IfNoneMatch = Annotated[str | None, Header()]


def wants_events(request: Request) -> bool:
    """Whether the caller asked for server-sent events."""
    return "text/event-stream" in request.headers.get("accept", "")


def quoted(etag: str) -> str:
    return f'"{etag}"'


def names(header: str | None, etag: str) -> bool:
    """Whether a condition header names this etag; `*` names any."""
    return header is not None and (header.strip() == "*" or etag in _etags(header))


def expect_match(if_match: str | None, etag: str) -> None:
    """Only the part before the dot counts: a job that merely made progress is not another job to its editor.

    Raises StaleWrite.
    """
    if if_match is None or if_match.strip() == "*":
        return
    if etag.split(".")[0] not in [given.split(".")[0] for given in _etags(if_match)]:
        raise StaleWrite(f"it has changed since: its ETag is now {quoted(etag)}; read it again and repeat the change")


def _etags(header: str) -> list[str]:
    return [part.strip().removeprefix("W/").strip('"') for part in header.split(",")]
