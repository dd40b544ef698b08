"""Weaviate's inference module (`multi2vec-clip`): set its `CLIP_INFERENCE_API` to the endpoint of a deployment."""

from typing import TYPE_CHECKING, Any

import orjson
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tinyclip.schemas import Request as Schema
from tinyclip.schemas import Response as Answer

from tinyclip_workers.serving.http.route import Described
from tinyclip_workers.serving.http.routes import health
from tinyclip_workers.serving.queries.bodies import read_document, validated
from tinyclip_workers.serving.queries.embeddings import MAX_INPUTS, EmbeddingsQuery, Input
from tinyclip_workers.serving.queries.parsing import MAX_IMAGES, check_texts

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Student


class VectorizeRequest(Schema):
    texts: list[str] | None = Field(default=None, max_length=MAX_INPUTS)
    images: list[str] | None = Field(default=None, max_length=MAX_IMAGES)


class VectorizeResponse(Answer):
    textVectors: list[list[float]]
    imageVectors: list[list[float]]


async def vectorize(student: "Student", request: Request) -> Response:
    asked = validated(VectorizeRequest, await read_document(request, student.options))
    texts, images = asked.texts or [], asked.images or []
    check_texts("/texts", texts)
    inputs = [Input("text", text, f"/texts/{i}") for i, text in enumerate(texts)]
    inputs += [Input("image", image, f"/images/{i}") for i, image in enumerate(images)]
    model = await student.answering(None)
    rows = (await model.service.embeddings(EmbeddingsQuery(inputs))).rows
    answer = {"textVectors": rows[: len(texts)], "imageVectors": rows[len(texts) :]}
    written = await student.in_thread(lambda: orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))
    return Response(written, media_type="application/json")


async def meta(student: "Student", request: Request) -> Response:
    return JSONResponse(health(student))


async def well(student: "Student", request: Request) -> Response:
    return Response(status_code=204)


ROUTES = [
    Described("POST", "/vectorize", vectorize, "Vectors, as Weaviate's CLIP module has them", VectorizeRequest,
              answer=VectorizeResponse),
    Described("GET", "/meta", meta, "What is served, for Weaviate", answer=dict[str, Any]),
    Described("GET", "/.well-known/live", well, "Whether the replica runs, for Weaviate", status=204),
    Described("GET", "/.well-known/ready", well, "Whether the replica is ready, for Weaviate", status=204),
]  # fmt: skip
