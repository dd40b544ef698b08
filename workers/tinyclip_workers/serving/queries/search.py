"""Search queries, read and checked."""

import base64
import json

from starlette.requests import Request
from tinyclip.filters import FilterError, parse_filter
from tinyclip.schemas import JSON, FieldError, SearchRequest

from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import field_error, invalid_input
from tinyclip_workers.serving.queries.bodies import (
    Parts,
    form_document,
    form_images,
    is_form,
    read_document,
    read_form,
    validated,
)
from tinyclip_workers.serving.queries.inputs import check_texts


async def read_search(request: Request, options: ServingOptions) -> SearchRequest:
    """Raises ProblemError."""
    document = _form_document(await read_form(request, options)) if is_form(request) else await read_document(request, options)
    query = validated(SearchRequest, document)
    if (query.text is None) == (query.image is None):
        raise invalid_input(FieldError(pointer="/text", value=None, message="give exactly one of text and image"))
    if query.text is not None:
        check_texts([("/text", query.text)])
    try:
        parse_filter(query.filter or {})
    except FilterError as error:
        raise invalid_input(field_error(f"/filter{error.pointer}", error.value, str(error))) from error
    return query


def _form_document(parts: Parts) -> JSON:
    """Return the JSON document of a form: its one file as base64, its filter parsed."""
    document = form_document(parts, repeated=())
    images = form_images(parts)
    if len(images) > 1:
        raise invalid_input(field_error("/image", len(images), "search for one image at a time"))
    for image in images:
        document["image"] = image if isinstance(image, str) else base64.b64encode(image).decode()
    if isinstance(document.get("filter"), str):
        try:
            document["filter"] = json.loads(document["filter"])
        except ValueError as error:
            raise invalid_input(field_error("/filter", document["filter"], f"is not JSON: {error}")) from error
    return document
