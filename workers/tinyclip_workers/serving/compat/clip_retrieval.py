"""clip-retrieval's search service: its `ClipClient` asks `{endpoint}/knn-service`, its front end `{endpoint}`."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import ConfigDict, Field, FiniteFloat
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tinyclip.schemas import FieldError, SearchRequest
from tinyclip.schemas import Request as Schema
from tinyclip.schemas.artifacts import INDEXES

from tinyclip_workers.retrieval.files import newest
from tinyclip_workers.serving.http.route import Described
from tinyclip_workers.serving.queries.bodies import read_document, validated
from tinyclip_workers.serving.queries.parsing import check_texts
from tinyclip_workers.serving.queries.problems import field_error, invalid

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Student


class KnnRequest(Schema):
    """What of clip-retrieval's request says what to look for. Its client always sends switches of filters that are not here
    (`deduplicate`, `use_safety_model`, `use_violence_detector`, `aesthetic_score`, …): these change nothing."""

    model_config = ConfigDict(extra="ignore")

    indice_name: str
    text: str | None = None
    image: str | None = None
    image_url: str | None = None
    embedding_input: list[FiniteFloat] | None = None
    """An embedding of this model."""
    modality: Literal["image"] = "image"
    """Indexes hold pictures."""
    use_mclip: Literal[False] = False
    num_images: int = Field(default=100, ge=1, le=1000)


async def knn_service(student: "Student", request: Request) -> Response:
    asked = validated(KnnRequest, await read_document(request, student.options))
    given = [one for one in (asked.text, asked.image, asked.image_url, asked.embedding_input) if one is not None]
    if len(given) != 1:
        message = "give exactly one of text, image, image_url and embedding_input"
        raise invalid(FieldError(pointer="/text", message=message))
    if asked.text is not None:
        check_texts("/text", asked.text)
    image = asked.image if asked.image is not None else asked.image_url
    query = SearchRequest(index=asked.indice_name, text=asked.text, image=image, top_k=asked.num_images)
    model = await student.searching(asked.indice_name)
    given_E = asked.embedding_input
    vector = None if given_E is None else _normalized(given_E, model.replica.engine.embed_dim)
    found = await model.service.search(query, vector)
    hits = [{**hit.metadata, "id": hit.id, "similarity": hit.score} for hit in found.hits]
    return Response(orjson.dumps(hits), media_type="application/json")


def _normalized(given: list[float], embed_dim: int) -> npt.NDArray[np.float32]:
    """Raises Refusal for what cannot be an embedding of this model."""
    vector_E = np.array(given, np.float64)
    length = float(np.linalg.norm(vector_E))
    if len(given) != embed_dim or not 0 < length < np.inf:
        raise invalid(field_error("/embedding_input", given, f"is no embedding of this model: {embed_dim} numbers, not all 0"))
    return (vector_E / length).astype(np.float32)


async def indices_list(student: "Student", request: Request) -> Response:
    return JSONResponse(await student.in_thread(lambda: _names(student)))


def _names(student: "Student") -> list[str]:
    """Of the indexes that hold embeddings of a model that is here."""
    here = student.models.names()
    found = ((name, newest(student.store, name)) for name in student.store.list(INDEXES))
    return [name for name, generation in found if generation is not None and generation.model in here]


ROUTES = [
    Described("POST", "/knn-service", knn_service, "Search, as clip-retrieval has it", KnnRequest, answer=list[dict[str, Any]]),
    Described("GET", "/indices-list", indices_list, "Names of the indexes of this model", answer=list[str]),
]
