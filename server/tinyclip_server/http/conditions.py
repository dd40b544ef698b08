"""`ETag`, `If-Match` and `If-None-Match`."""

from typing import Annotated

from fastapi import Header

from tinyclip_server.problems import StaleWrite

IfMatch = Annotated[str | None, Header()]
IfNoneMatch = Annotated[str | None, Header()]


def quoted(etag: str) -> str:
    return f'"{etag}"'


def matches(header: str | None, etag: str) -> bool:
    """Return whether a condition header holds this ETag; `*` matches any."""
    return header is not None and (header.strip() == "*" or etag in _etags(header))


def expect_match(if_match: str | None, etag: str) -> None:
    """Raise StaleWrite if the header holds another ETag.

    Only the part before the dot counts: progress of a job does not conflict with an edit of it.
    """
    if if_match is None or if_match.strip() == "*":
        return
    if etag.split(".")[0] not in [given.split(".")[0] for given in _etags(if_match)]:
        raise StaleWrite(f"the resource has changed: its ETag is now {quoted(etag)}; read it again and repeat the change")


def _etags(header: str) -> list[str]:
    return [part.strip().removeprefix("W/").strip('"') for part in header.split(",")]
