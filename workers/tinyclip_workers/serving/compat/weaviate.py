"""Weaviate's inference module (`multi2vec-clip`): set its `CLIP_INFERENCE_API` to the endpoint of a deployment."""

from functools import partial
from typing import TYPE_CHECKING

import orjson
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from tinyclip.schemas import Request as RequestSchema
from tinyclip.schemas import Response as ResponseSchema
from tinyclip.schemas._base import EncodedImage, LongText

from tinyclip_workers.serving.queries.bodies import read_query, validated
from tinyclip_workers.serving.queries.embeddings import MAX_INPUTS, EmbeddingInput, EmbeddingsQuery
from tinyclip_workers.serving.queries.inputs import MAX_IMAGES, check_texts, with_pointers

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Replica

VECTORIZE = "/vectorize"


class VectorizeRequest(RequestSchema):
    texts: list[LongText] | None = Field(default=None, max_length=MAX_INPUTS)
    images: list[EncodedImage] | None = Field(default=None, max_length=MAX_IMAGES)


class VectorizeResponse(ResponseSchema):
    textVectors: list[list[float]]
    imageVectors: list[list[float]]


async def vectorize(replica: "Replica", request: Request) -> Response:
    fields = await read_query(request, replica.options, partial(validated, VectorizeRequest))
    texts, images = with_pointers("/texts", fields.texts or []), with_pointers("/images", fields.images or [])
    check_texts(texts)
    inputs = [EmbeddingInput("text", text, pointer) for pointer, text in texts]
    inputs += [EmbeddingInput("image", image, pointer) for pointer, image in images]
    model = await replica.model_for(None)
    rows = (await model.inference.embeddings(EmbeddingsQuery(inputs))).rows
    answer = {"textVectors": rows[: len(texts)], "imageVectors": rows[len(texts) :]}
    body = await replica.run_in_thread(lambda: orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))
    return Response(body, media_type="application/json")


async def probe(replica: "Replica", request: Request) -> Response:
    """Answer 204: a process that answers is live and ready."""
    return Response(status_code=204)
