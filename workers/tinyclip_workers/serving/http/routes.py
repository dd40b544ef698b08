"""The deployment's own routes: zero-shot classification, embeddings, search, health."""

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tinyclip.schemas import (
    EmbeddingsRequest,
    EmbeddingsResponse,
    SearchRequest,
    SearchResponse,
    ZeroShotRequest,
    ZeroShotResponse,
)

from tinyclip_workers.serving.compat.hugging_face import hugging_face_answer, is_hugging_face
from tinyclip_workers.serving.http.route import Described
from tinyclip_workers.serving.queries.bodies import is_form, read_document, read_form
from tinyclip_workers.serving.queries.embeddings import EmbeddingsQuery, embeddings_answer, read_embeddings
from tinyclip_workers.serving.queries.parsing import ZeroShotQuery, read_search, zero_shot_form, zero_shot_query

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Student

LARGE = 16
"""Embeddings; to write more of them as JSON than this takes long enough to be done off the event loop."""


async def zero_shot(student: "Student", request: Request) -> Response:
    if is_form(request):
        parts = await read_form(request, student.options)
        return await answer_zero_shot(student, zero_shot_form(parts, student.options))
    document = await read_document(request, student.options)
    if is_hugging_face(document):
        return await hugging_face_answer(student, document)
    return await answer_zero_shot(student, zero_shot_query(document, student.options))


async def answer_zero_shot(student: "Student", query: ZeroShotQuery) -> Response:
    query = await student.with_labels(query)
    model = await student.answering(query.model, canary=True)
    answer = await model.service.zero_shot(query)
    return Response(answer.model_dump_json(), media_type="application/json")


async def embeddings(student: "Student", request: Request) -> Response:
    return await answer_embeddings(student, await read_embeddings(request, student.options))


async def answer_embeddings(student: "Student", query: EmbeddingsQuery) -> Response:
    model = await student.answering(query.model)
    embedded = await model.service.embeddings(query)
    if len(query.inputs) <= LARGE:
        written = embeddings_answer(query, embedded, model.name)
    else:
        written = await student.in_thread(lambda: embeddings_answer(query, embedded, model.name))
    return Response(written, media_type="application/json")


async def search(student: "Student", request: Request) -> Response:
    query = await read_search(request, student.options)
    model = await student.searching(query.index)
    answer = await model.service.search(query)
    return Response(answer.model_dump_json(), media_type="application/json")


async def healthz(student: "Student", request: Request) -> Response:
    return JSONResponse(health(student))


def health(student: "Student") -> dict[str, Any]:
    own = student.models.own
    engine = own.replica.engine
    return {
        "status": "ok",
        "deployment": student.options.name,
        "model": own.name,
        "engine": engine.name,
        "embed_dim": engine.embed_dim,
        "engine_report": engine.report.model_dump(mode="json"),
        "canary": student.models.canary_state(),
    }


ROUTES = [
    Described("POST", "/zero-shot", zero_shot, "The likeliest labels of images", ZeroShotRequest,
              ("labels", "label_set", "templates", "top_k", "on_error", "model"), ZeroShotResponse),
    Described("POST", "/embeddings", embeddings, "Embeddings of texts and images", EmbeddingsRequest,
              ("input", "encoding_format", "on_error", "dimensions", "model"), EmbeddingsResponse),
    Described("POST", "/search", search, "The items of an index nearest to a text or an image", SearchRequest,
              ("index", "text", "top_k", "filter"), SearchResponse),
    Described("GET", "/healthz", healthz, "Whether the replica is well, and what it serves", answer=dict[str, Any]),
]  # fmt: skip
