"""Checks of a JSON body before anything of it is used: its depth, and text that cannot be stored."""

import json
from typing import Any

from fastapi import Request

from tinyclip_server.problems import InvalidInput

MAX_DEPTH = 64
"""Levels of a JSON body. A job's spec has seven."""
UNSTORABLE_TEXT = "the request contains text that cannot be stored: a NUL character or an unpaired surrogate"


async def expect_storable(request: Request) -> None:
    """Raise InvalidInput for a body that is nested too deep or has a NUL or an unpaired surrogate.

    JSON can express both; databases and UTF-8 cannot.
    """
    if "json" not in request.headers.get("content-type", ""):  # not parsed by this API, and perhaps gigabytes
        return
    body = await request.body()
    may_be_unstorable = b"\\u" in body or b"\xed" in body  # escaped, or the first byte of an unpaired surrogate
    if not may_be_unstorable and body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    try:
        document = await request.json()
        if _is_too_deep(document):
            raise InvalidInput(f"the body is nested deeper than {MAX_DEPTH} levels")
        unescaped = json.dumps(document, ensure_ascii=False)
    except (ValueError, RecursionError):  # a body that is not JSON is refused by its endpoint
        return
    if "\\u0000" in unescaped or any("\ud800" <= character <= "\udfff" for character in unescaped):
        raise InvalidInput(UNSTORABLE_TEXT)


def _is_too_deep(document: Any) -> bool:
    """Return whether a value lies deeper than MAX_DEPTH, without recursion."""
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [
            value
            for holder in level
            if isinstance(holder, dict | list)
            for value in (holder.values() if isinstance(holder, dict) else holder)
        ]
    return bool(level)
