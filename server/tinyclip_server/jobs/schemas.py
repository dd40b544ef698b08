"""`/v1/schemas`: JSON Schemas of documents that users write, for editors."""

import hashlib
import json
from functools import cache

from fastapi import APIRouter, Response
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from tinyclip.schemas import JSON, JobSpec, SearchPost

from tinyclip_server.http.bodies import BoundedRoute
from tinyclip_server.http.conditions import IfNoneMatch, matches, quoted
from tinyclip_server.jobs.field_docs import described
from tinyclip_server.problems import NotFound

router = APIRouter(route_class=BoundedRoute, prefix="/schemas", tags=["schemas"])

DOCUMENTS: dict[str, type[BaseModel]] = {"JobSpec": JobSpec, "SearchPost": SearchPost}
CACHED = "private, max-age=300"
"""An upgrade of the server may change a schema, which its ETag shows."""


@router.get("/{document}", response_model=JSON, responses={304: {"description": "as in the cache"}})
async def get(document: str, if_none_match: IfNoneMatch = None) -> Response:
    """Get the JSON Schema (2020-12, self-contained) of a document: `JobSpec` or `SearchPost`."""
    if document not in DOCUMENTS:
        raise NotFound(f"there is no schema of that name; there are {', '.join(DOCUMENTS)}", code="no_such_schema")
    body, etag = _schema(document)
    headers = {"ETag": quoted(etag), "Cache-Control": CACHED}
    if matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


@cache
def _schema(document: str) -> tuple[bytes, str]:
    """Return the schema as JSON, and its ETag."""
    model = DOCUMENTS[document]
    schema = {"$schema": GenerateJsonSchema.schema_dialect, **described(model.model_json_schema(), model)}
    body = json.dumps(schema, ensure_ascii=False).encode()
    return body, hashlib.sha256(body).hexdigest()[:32]
