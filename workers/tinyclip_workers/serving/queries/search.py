"""Search queries, read and checked."""

import base64

from starlette.requests import Request
from tinyclip.bounded_json import parse
from tinyclip.filters import FilterError, parse_filter
from tinyclip.schemas import JSON, FieldError, SearchRequest

from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import field_error, invalid_input
from tinyclip_workers.serving.queries.bodies import (
    Parts,
    form_document,
    form_images,
    is_form,
    read_form_query,
    read_query,
    validated,
)
from tinyclip_workers.serving.queries.inputs import check_texts


async def read_search(request: Request, options: ServingOptions) -> SearchRequest:
    """Raises ProblemError."""
    if is_form(request):
        return await read_form_query(request, options, lambda parts: _query(_form_document(parts)))
    return await read_query(request, options, _query)


def _query(document: JSON) -> SearchRequest:
    query = validated(SearchRequest, document)
    if [query.text, query.image, query.item].count(None) != 2:
        raise invalid_input(FieldError(pointer="/text", value=None, message="give exactly one of text, image and item"))
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
            document["filter"] = parse(document["filter"].encode("utf-8", "surrogatepass"), allow_nul=True)
        except ValueError as error:
            raise invalid_input(field_error("/filter", document["filter"], f"is not JSON: {error}")) from error
    return document
