"""The table of all routes: path, handler, and their description for OpenAPI."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from tinyclip.schemas import (
    EmbeddingsRequest,
    EmbeddingsResponse,
    LabelScore,
    LabelSet,
    LabelSetPut,
    LabelSetSummary,
    Page,
    SearchRequest,
    SearchResponse,
    ZeroShotRequest,
    ZeroShotResponse,
)

from tinyclip_workers.serving.compat import clip_retrieval, hugging_face, openai, weaviate
from tinyclip_workers.serving.http import handlers, try_it

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Replica

Handler = Callable[["Replica", Request], Awaitable[Response]]


@dataclass(frozen=True)
class DocumentedRoute:
    """One route and its OpenAPI description."""

    method: str
    path: str
    handler: Handler
    summary: str
    body: type[BaseModel] | None = None
    """Schema of a JSON request."""
    form: tuple[str, ...] = ()
    """Fields of a multipart request, beside files named `image`; empty: the route accepts no form."""
    answer: Any = None
    """Type of a JSON answer; None: an empty body, or one that is not JSON."""
    status: int = 200
    """Status of a success."""


_EMBEDDINGS_FORM = ("input", "encoding_format", "on_error", "dimensions", "model")

ROUTES = [
    DocumentedRoute("POST", "/zero-shot", handlers.zero_shot, "The likeliest labels of images", ZeroShotRequest,
                    ("labels", "label_set", "templates", "top_k", "on_error", "model"), ZeroShotResponse),
    DocumentedRoute("POST", "/embeddings", handlers.embeddings, "Embeddings of texts and images", EmbeddingsRequest,
                    _EMBEDDINGS_FORM, EmbeddingsResponse),
    DocumentedRoute("POST", "/search", handlers.search, "The items of an index nearest to a text, an image or an item",
                    SearchRequest, ("index", "text", "item", "top_k", "filter"), SearchResponse),
    DocumentedRoute("GET", "/healthz", handlers.health, "Health of the replica, and what it serves", answer=dict[str, Any]),
    DocumentedRoute("GET", "/label-sets", handlers.list_label_sets, "Registered label sets, by name",
                    answer=Page[LabelSetSummary]),
    DocumentedRoute("PUT", "/label-sets/{name}", handlers.put_label_set, "Register labels with their templates", LabelSetPut,
                    answer=LabelSet, status=201),
    DocumentedRoute("GET", "/label-sets/{name}", handlers.get_label_set, "A registered label set", answer=LabelSet),
    DocumentedRoute("DELETE", "/label-sets/{name}", handlers.delete_label_set, "Delete a label set", status=204),
    DocumentedRoute("POST", "/", hugging_face.zero_shot, "Zero-shot classification in Hugging Face's shape",
                    hugging_face.HuggingFaceRequest, answer=list[LabelScore]),
    DocumentedRoute("POST", "/v1/embeddings", handlers.embeddings, "Embeddings, as OpenAI's API has them", EmbeddingsRequest,
                    _EMBEDDINGS_FORM, EmbeddingsResponse),
    DocumentedRoute("GET", "/v1/models", openai.models, "The served models", answer=openai.OpenAIModels),
    DocumentedRoute("GET", "/v1/models/{id:path}", openai.model, "One served model", answer=openai.OpenAIModel),
    DocumentedRoute("POST", weaviate.VECTORIZE, weaviate.vectorize, "Vectors, as Weaviate's CLIP module has them",
                    weaviate.VectorizeRequest, answer=weaviate.VectorizeResponse),
    DocumentedRoute("GET", "/meta", handlers.health, "What is served, for Weaviate", answer=dict[str, Any]),
    DocumentedRoute("GET", "/.well-known/live", weaviate.probe, "Liveness of the replica, for Weaviate", status=204),
    DocumentedRoute("GET", "/.well-known/ready", weaviate.probe, "Readiness of the replica, for Weaviate", status=204),
    DocumentedRoute("POST", "/knn-service", clip_retrieval.knn_service, "Search, as clip-retrieval has it",
                    clip_retrieval.KnnRequest, answer=list[dict[str, Any]]),
    DocumentedRoute("GET", "/indices-list", clip_retrieval.indices_list, "Names of the indexes of this model", answer=list[str]),
    DocumentedRoute("GET", "/", try_it.page, "A page to try the deployment with"),
]  # fmt: skip
