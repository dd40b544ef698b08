"""clip-retrieval's search service: its `ClipClient` asks `{endpoint}/knn-service`, its front end `{endpoint}`."""

from typing import TYPE_CHECKING, Any, Literal

import orjson
from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tinyclip.schemas import FieldError, SearchRequest
from tinyclip.schemas import Request as Schema

from tinyclip_workers.serving.bodies import read_document, validated
from tinyclip_workers.serving.problems import invalid
from tinyclip_workers.serving.queries import check_texts
from tinyclip_workers.serving.route import Described

if TYPE_CHECKING:
    from tinyclip_workers.serving.student import Student


class KnnRequest(Schema):
    """What of clip-retrieval's request says what to look for. Its client always sends switches of filters that are not here
    (`deduplicate`, `use_safety_model`, `use_violence_detector`, `aesthetic_score`, …): these change nothing."""

    model_config = ConfigDict(extra="ignore")

    indice_name: str
    text: str | None = None
    image: str | None = None
    image_url: str | None = None
    embedding_input: None = None
    """Not taken: a vector of another model would find anything."""
    modality: Literal["image"] = "image"
    """Indexes hold pictures."""
    use_mclip: Literal[False] = False
    num_images: int = Field(default=100, ge=1, le=1000)


async def knn_service(student: "Student", request: Request) -> Response:
    asked = validated(KnnRequest, await read_document(request, student.options))
    given = [one for one in (asked.text, asked.image, asked.image_url) if one is not None]
    if len(given) != 1:
        raise invalid(FieldError(pointer="/text", message="give exactly one of text, image and image_url"))
    if asked.text is not None:
        check_texts("/text", asked.text)
    image = asked.image if asked.image is not None else asked.image_url
    model = await student.searching(asked.indice_name)
    found = await model.service.search(
        SearchRequest(index=asked.indice_name, text=asked.text, image=image, top_k=asked.num_images)
    )
    hits = [{**hit.metadata, "id": hit.id, "similarity": hit.score} for hit in found.hits]
    return Response(orjson.dumps(hits), media_type="application/json")


async def indices_list(student: "Student", request: Request) -> Response:
    return JSONResponse(await student.in_thread(student.index_names))


ROUTES = [
    Described("POST", "/knn-service", knn_service, "Search, as clip-retrieval has it", KnnRequest, answer=list[dict[str, Any]]),
    Described("GET", "/indices-list", indices_list, "Names of the indexes of this model", answer=list[str]),
]
