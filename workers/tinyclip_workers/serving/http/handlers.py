"""The handlers of the deployment's own routes: zero-shot classification, embeddings, search, label sets and health."""

from functools import partial
from typing import TYPE_CHECKING, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tinyclip.schemas import JSON, LabelSetSummary, Page

from tinyclip_workers.serving.compat.hugging_face import answer_hugging_face, hugging_face_query, is_hugging_face
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import field_error, invalid_input
from tinyclip_workers.serving.queries.bodies import is_form, read_form_query, read_query
from tinyclip_workers.serving.queries.embeddings import embeddings_response, read_embeddings
from tinyclip_workers.serving.queries.search import read_search
from tinyclip_workers.serving.queries.zero_shot import ZeroShotQuery, read_label_set, zero_shot_form_query, zero_shot_query

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Replica

MAX_INLINE_EMBEDDINGS = 16
"""To write more embeddings than this as JSON takes too long on the event loop."""
MAX_PAGE_SIZE = 200


async def zero_shot(replica: "Replica", request: Request) -> Response:
    options = replica.options
    if is_form(request):
        query = await read_form_query(request, options, partial(zero_shot_form_query, options=options))
    else:
        query, shape = await read_query(request, options, partial(_zero_shot_query, options=options))
        if shape == "hugging-face":
            return await answer_hugging_face(replica, query)
    query = await replica.resolve_label_set(query)
    model = await replica.model_for(query.model, canary=True)
    answer = await model.inference.zero_shot(query)
    return Response(await replica.run_in_thread(answer.model_dump_json), media_type="application/json")


def _zero_shot_query(document: JSON, options: ServingOptions) -> tuple[ZeroShotQuery, Literal["ours", "hugging-face"]]:
    if is_hugging_face(document):
        return hugging_face_query(document, options), "hugging-face"
    return zero_shot_query(document, options), "ours"


async def embeddings(replica: "Replica", request: Request) -> Response:
    query = await read_embeddings(request, replica.options)
    model = await replica.model_for(query.model)
    rows = await model.inference.embeddings(query)
    if len(query.inputs) <= MAX_INLINE_EMBEDDINGS:
        body = embeddings_response(query, rows, model.name)
    else:
        body = await replica.run_in_thread(lambda: embeddings_response(query, rows, model.name))
    return Response(body, media_type="application/json")


async def search(replica: "Replica", request: Request) -> Response:
    query = await read_search(request, replica.options)
    model = await replica.model_for_index(query.index)
    answer = await model.inference.search(query)
    return Response(await replica.run_in_thread(answer.model_dump_json), media_type="application/json")


async def health(replica: "Replica", request: Request) -> Response:
    return JSONResponse(replica.health())


async def put_label_set(replica: "Replica", request: Request) -> Response:
    body = await read_label_set(request, replica.options)
    label_set, is_new = await replica.label_sets.put(request.path_params["name"], body.labels, body.templates)
    replica.warm_up(label_set)
    warnings = await replica.models.own.inference.label_warnings(label_set.labels, label_set.templates)
    answer = label_set.model_copy(update={"warnings": warnings})
    return JSONResponse(answer.model_dump(exclude_defaults=True), 201 if is_new else 200)


async def get_label_set(replica: "Replica", request: Request) -> Response:
    label_set = await replica.label_sets.get(request.path_params["name"], "/name")
    return JSONResponse(label_set.model_dump(exclude_defaults=True))


async def delete_label_set(replica: "Replica", request: Request) -> Response:
    await replica.label_sets.delete(request.path_params["name"])
    return Response(status_code=204)


async def list_label_sets(replica: "Replica", request: Request) -> Response:
    """List by name, a page at a time; the token of the next page is the last name of this one."""
    size = _page_size(request.query_params.get("page_size", "50"))
    after = request.query_params.get("page_token", "")
    names = [name for name in await replica.label_sets.names() if name > after]
    items = await replica.label_sets.summaries(names[:size])
    token = names[size - 1] if len(names) > size else None
    return JSONResponse(Page[LabelSetSummary](items=items, next_page_token=token).model_dump())


def _page_size(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value[:9]) <= MAX_PAGE_SIZE:
        raise invalid_input(field_error("/page_size", value, f"give a number from 1 to {MAX_PAGE_SIZE}"))
    return int(value)
