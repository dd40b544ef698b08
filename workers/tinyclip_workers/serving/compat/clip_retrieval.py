"""clip-retrieval's search service: its `ClipClient` sends queries to `{endpoint}/knn-service`, its front end to `{endpoint}`."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import ConfigDict, Field, FiniteFloat
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tinyclip.artifacts.paths import INDEXES
from tinyclip.schemas import FieldError, SearchRequest
from tinyclip.schemas import Request as Schema
from tinyclip.schemas._base import EncodedImage, Line, LongText

from tinyclip_workers.retrieval.commits import newest
from tinyclip_workers.serving.problems import field_error, invalid_input
from tinyclip_workers.serving.queries.bodies import read_query, validated
from tinyclip_workers.serving.queries.inputs import check_texts
from tinyclip_workers.serving.replica.store_calls import call_store

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Replica


class KnnRequest(Schema):
    """The fields of clip-retrieval's request that define a query.

    Its client also sends switches of filters that do not exist here (`deduplicate`, `use_safety_model`,
    `use_violence_detector`, `aesthetic_score`, …); these are ignored.
    """

    model_config = ConfigDict(extra="ignore")

    indice_name: Line
    text: LongText | None = None
    image: EncodedImage | None = None
    image_url: EncodedImage | None = None
    embedding_input: Annotated[list[FiniteFloat], Field(max_length=16_384, fail_fast=True)] | None = None
    """An embedding of this model."""
    modality: Literal["image"] = "image"
    """Indexes hold images."""
    use_mclip: Literal[False] = False
    num_images: int = Field(default=100, ge=1, le=1000)


async def knn_service(replica: "Replica", request: Request) -> Response:
    fields = await read_query(request, replica.options, partial(validated, KnnRequest))
    given = [one for one in (fields.text, fields.image, fields.image_url, fields.embedding_input) if one is not None]
    if len(given) != 1:
        message = "give exactly one of text, image, image_url and embedding_input"
        raise invalid_input(FieldError(pointer="/text", message=message))
    if fields.text is not None:
        check_texts([("/text", fields.text)])
    image = fields.image if fields.image is not None else fields.image_url
    query = SearchRequest(index=fields.indice_name, text=fields.text, image=image, top_k=fields.num_images)
    model = await replica.model_for_index(fields.indice_name)
    vector = None if fields.embedding_input is None else _normalized(fields.embedding_input, model.engine.embed_dim)
    found = await model.inference.search(query, vector)
    hits = [{**hit.metadata, "id": hit.id, "similarity": hit.score} for hit in found.hits]
    return Response(await replica.run_in_thread(lambda: orjson.dumps(hits)), media_type="application/json")


def _normalized(values: list[float], embed_dim: int) -> npt.NDArray[np.float32]:
    """Raises ProblemError for what cannot be an embedding of this model."""
    vector_E = np.array(values, np.float64)
    length = float(np.linalg.norm(vector_E))
    if len(values) != embed_dim or not 0 < length < np.inf:
        message = f"is no embedding of this model: {embed_dim} numbers, not all 0"
        raise invalid_input(field_error("/embedding_input", values, message))
    return (vector_E / length).astype(np.float32)


async def indices_list(replica: "Replica", request: Request) -> Response:
    return JSONResponse(await call_store(lambda: _index_names(replica)))


def _index_names(replica: "Replica") -> list[str]:
    """Return the names of the indexes that hold embeddings of a model of this replica."""
    models = replica.models.names()
    found = ((name, newest(replica.store, name)) for name in replica.store.list(INDEXES))
    return [name for name, generation in found if generation is not None and generation.model in models]
