"""Helpers shared by all resources: ids, deletion and responses."""

import secrets
from datetime import datetime
from typing import Any, Protocol

from fastapi import Response
from pydantic import BaseModel

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import RayJobRow
from tinyclip_server.http.conditions import quoted

DELETING = "deleting"
"""The state of a resource that is being deleted; every kind of resource has it."""
THUMBNAIL_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}}, "description": "the image"},
    304: {"description": "the thumbnail still has the ETag of `If-None-Match`"},
}
ID_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
"""Lowercase letters and digits that cannot be mistaken for each other."""


def new_id(prefix: str) -> str:
    """Return a random id, `<prefix>_` and 16 characters of `ID_ALPHABET`."""
    return f"{prefix}_" + "".join(secrets.choice(ID_ALPHABET) for _ in range(16))


class ReconciledRow(Protocol):
    """A row whose resource a reconcile loop creates, changes and finally deletes."""

    state: str
    message: str
    updated_at: datetime
    version: int


def mark_deleting(row: ReconciledRow) -> None:
    """Put a row into the state `deleting`; its reconciler does the rest. Repeated, it is a no-op."""
    if row.state != DELETING:
        row.state, row.message, row.updated_at = DELETING, "", now()
        row.version += 1


def begin_ray_job(row: RayJobRow, submission_id: str, state: str) -> None:
    """Let a row's work be done by a new Ray job, which its reconciler submits in its next round."""
    row.ray_submission_id, row.submitted, row.next_segment = submission_id, False, 1
    row.cluster, row.progressed_at = None, None
    row.state, row.message, row.updated_at = state, "", now()
    row.version += 1


def resource_response(document: BaseModel, etag: str, status: int = 200) -> Response:
    """Return a response with one resource and its ETag."""
    return Response(document.model_dump_json(), status, {"ETag": quoted(etag)}, media_type="application/json")
