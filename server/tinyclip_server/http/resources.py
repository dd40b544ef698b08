"""What deployments, indexes, evaluations and tokens have in common: how one is shown, and how its end is asked for."""

import secrets
from datetime import datetime
from typing import Protocol

from fastapi import Response
from pydantic import BaseModel

from tinyclip_server.database.engine import now
from tinyclip_server.http.conditions import quoted

DELETING = "deleting"
"""The state of a resource whose end was asked for; all kinds have it."""
ID_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
"""Lowercase letters and digits that cannot be mistaken for each other."""


def new_id(prefix: str) -> str:
    """Return a random id, `<prefix>_` and 16 characters of `ID_ALPHABET`."""
    return f"{prefix}_" + "".join(secrets.choice(ID_ALPHABET) for _ in range(16))


class Reconciled(Protocol):
    """A row that is brought to what is asked of it, and that goes when that is its end and all that it stood for is gone."""

    state: str
    message: str
    updated_at: datetime
    version: int


def ask_for_the_end(row: Reconciled) -> None:
    """Once; asked again, nothing changes."""
    if row.state != DELETING:
        row.state, row.message, row.updated_at = DELETING, "", now()
        row.version += 1


def answer(document: BaseModel, etag: str, status: int = 200) -> Response:
    """One resource as the body of an answer."""
    return Response(document.model_dump_json(), status, {"ETag": quoted(etag)}, media_type="application/json")
