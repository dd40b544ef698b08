"""What a deployed student answers: zero-shot classification, embeddings, search."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

import httpx

from tinyclip._calls import Call, as_model
from tinyclip._images import Picture, encode
from tinyclip._label_sets import AsyncLabelSets, LabelSets
from tinyclip._transport import AsyncTransport, Transport
from tinyclip.schemas import (
    EmbeddingsRequest,
    EmbeddingsResponse,
    FieldError,
    LabelScore,
    SearchRequest,
    SearchResponse,
    ZeroShotRequest,
    ZeroShotResponse,
)

T = TypeVar("T")

OnError = Literal["fail", "skip"]

Vectors = list[list[float]]
"""One L2-normalised embedding an input."""


@dataclass(frozen=True)
class EmbeddedImages:
    """What became of images of which bad ones were skipped."""

    vectors: list[list[float] | None]
    """In the order asked, L2-normalised; None for an image that was skipped."""
    errors: list[FieldError]
    """Why images were skipped."""


def zero_shot(
    endpoint: str,
    images: Sequence[Picture],
    labels: Sequence[str] | None,
    templates: Sequence[str] | None = None,
    top_k: int = 5,
    on_error: OnError = "fail",
    label_set: str | None = None,
    model: str | None = None,
) -> Call[ZeroShotResponse]:
    body = ZeroShotRequest.model_construct(images=[encode(image) for image in images], top_k=top_k)
    if labels is not None:
        body.labels = list(labels)
    if label_set is not None:
        body.label_set = label_set
    if templates is not None:
        body.templates = list(templates)
    if on_error != "fail":
        body.on_error = on_error
    if model is not None:
        body.model = model
    document = body.model_dump(mode="json", exclude_unset=True)
    return Call("POST", f"{endpoint}/zero-shot", as_model(ZeroShotResponse), body=document)


def embed_texts(endpoint: str, texts: Sequence[str], model: str | None = None) -> Call[Vectors]:
    return _embed(endpoint, EmbeddingsRequest(input=list(texts), modality="text", model=model), _vectors)


@overload
def embed_images(
    endpoint: str, images: Sequence[Picture], model: str | None = None, on_error: Literal["fail"] = "fail"
) -> Call[Vectors]: ...
@overload
def embed_images(
    endpoint: str, images: Sequence[Picture], model: str | None = None, *, on_error: Literal["skip"]
) -> Call[EmbeddedImages]: ...
def embed_images(
    endpoint: str, images: Sequence[Picture], model: str | None = None, on_error: OnError = "fail"
) -> Call[Vectors] | Call[EmbeddedImages]:
    body = EmbeddingsRequest(input=[encode(image) for image in images], modality="image", model=model)
    if on_error == "fail":
        return _embed(endpoint, body, _vectors)
    return _embed(endpoint, body.model_copy(update={"on_error": on_error}), _embedded)


def health(endpoint: str) -> Call[dict[str, Any]]:
    return Call("GET", f"{endpoint}/healthz", lambda response: dict(response.json()))


Filter = Mapping[str, Any]
"""Conditions on metadata: `{"year": {"gte": 2000}, "camera.make": "Leica", "tags": ["red", "blue"]}`."""


def search(
    endpoint: str, index: str, text: str | None, image: Picture | None, top_k: int, filter: Filter | None = None
) -> Call[SearchResponse]:
    encoded = None if image is None else encode(image)
    conditions = None if filter is None else dict(filter)
    body = SearchRequest.model_construct(index=index, text=text, image=encoded, top_k=top_k, filter=conditions)
    return Call("POST", f"{endpoint}/search", as_model(SearchResponse), body=body.model_dump(mode="json", exclude_none=True))


class Student:
    """A deployed student, or of a deployment with several models the one named `model`.

    Pictures are paths, bytes, http(s) URLs or data URIs."""

    def __init__(self, transport: Transport, endpoint: str, model: str | None = None) -> None:
        self._transport, self._model = transport, model
        self.endpoint = endpoint
        self.label_sets = LabelSets(transport, endpoint)

    def zero_shot(
        self,
        images: Sequence[Picture],
        labels: Sequence[str] | None = None,
        *,
        label_set: str | None = None,
        templates: Sequence[str] | None = None,
        top_k: int = 5,
        on_error: OnError = "fail",
    ) -> ZeroShotResponse:
        """The `top_k` likeliest labels of each image with their probabilities over all labels.

        Labels are given, or those of a registered set. With `on_error="skip"` a bad image has None among the results and its
        reason among the errors; otherwise it fails the request."""
        call = zero_shot(self.endpoint, images, labels, templates, top_k, on_error, label_set, self._model)
        return self._transport.send(call)

    def classify(
        self,
        image: Picture,
        labels: Sequence[str] | None = None,
        *,
        label_set: str | None = None,
        templates: Sequence[str] | None = None,
        top_k: int = 5,
    ) -> list[LabelScore]:
        """The `top_k` likeliest labels of one image."""
        return self.zero_shot([image], labels, label_set=label_set, templates=templates, top_k=top_k).results[0] or []

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """One embedding a text, L2-normalised."""
        return self._transport.send(embed_texts(self.endpoint, texts, self._model))

    @overload
    def embed_images(self, images: Sequence[Picture], *, on_error: Literal["fail"] = "fail") -> Vectors: ...
    @overload
    def embed_images(self, images: Sequence[Picture], *, on_error: Literal["skip"]) -> EmbeddedImages: ...
    def embed_images(self, images: Sequence[Picture], *, on_error: OnError = "fail") -> Vectors | EmbeddedImages:
        """One embedding an image, L2-normalised.

        With `on_error="skip"` a bad image has None among the `vectors` and its reason among the `errors` of what is returned;
        otherwise it fails the request."""
        if on_error == "skip":
            return self._transport.send(embed_images(self.endpoint, images, self._model, on_error="skip"))
        return self._transport.send(embed_images(self.endpoint, images, self._model))

    def search(
        self,
        index: str,
        text: str | None = None,
        *,
        image: Picture | None = None,
        top_k: int = 10,
        filter: Filter | None = None,
    ) -> SearchResponse:
        """The `top_k` items of an index nearest to a text or to an image, of those whose metadata meets the filter."""
        return self._transport.send(search(self.endpoint, index, text, image, top_k, filter))

    def health(self) -> dict[str, Any]:
        """What a replica says of itself: its model, the engine that computes, and how that was chosen."""
        return self._transport.send(health(self.endpoint))


class AsyncStudent:
    """A deployed student; see `Student`."""

    def __init__(self, transport: AsyncTransport, endpoint: str, model: str | None = None) -> None:
        self._transport, self._model = transport, model
        self.endpoint = endpoint
        self.label_sets = AsyncLabelSets(transport, endpoint)

    async def zero_shot(
        self,
        images: Sequence[Picture],
        labels: Sequence[str] | None = None,
        *,
        label_set: str | None = None,
        templates: Sequence[str] | None = None,
        top_k: int = 5,
        on_error: OnError = "fail",
    ) -> ZeroShotResponse:
        """The `top_k` likeliest labels of each image; see `Student.zero_shot`."""
        call = zero_shot(self.endpoint, images, labels, templates, top_k, on_error, label_set, self._model)
        return await self._transport.send(call)

    async def classify(
        self,
        image: Picture,
        labels: Sequence[str] | None = None,
        *,
        label_set: str | None = None,
        templates: Sequence[str] | None = None,
        top_k: int = 5,
    ) -> list[LabelScore]:
        """The `top_k` likeliest labels of one image."""
        return (await self.zero_shot([image], labels, label_set=label_set, templates=templates, top_k=top_k)).results[0] or []

    async def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """One embedding a text, L2-normalised."""
        return await self._transport.send(embed_texts(self.endpoint, texts, self._model))

    @overload
    async def embed_images(self, images: Sequence[Picture], *, on_error: Literal["fail"] = "fail") -> Vectors: ...
    @overload
    async def embed_images(self, images: Sequence[Picture], *, on_error: Literal["skip"]) -> EmbeddedImages: ...
    async def embed_images(self, images: Sequence[Picture], *, on_error: OnError = "fail") -> Vectors | EmbeddedImages:
        """One embedding an image, L2-normalised; see `Student.embed_images`."""
        if on_error == "skip":
            return await self._transport.send(embed_images(self.endpoint, images, self._model, on_error="skip"))
        return await self._transport.send(embed_images(self.endpoint, images, self._model))

    async def search(
        self,
        index: str,
        text: str | None = None,
        *,
        image: Picture | None = None,
        top_k: int = 10,
        filter: Filter | None = None,
    ) -> SearchResponse:
        """The `top_k` items of an index nearest to a text or to an image; see `Student.search`."""
        return await self._transport.send(search(self.endpoint, index, text, image, top_k, filter))

    async def health(self) -> dict[str, Any]:
        """What a replica says of itself; see `Student.health`."""
        return await self._transport.send(health(self.endpoint))


def _embed(endpoint: str, body: EmbeddingsRequest, read: Callable[[httpx.Response], T]) -> Call[T]:
    return Call("POST", f"{endpoint}/embeddings", read, body=body.model_dump(mode="json", exclude_none=True))


def _vectors(response: httpx.Response) -> Vectors:
    return [vector for vector in _embedded(response).vectors if vector is not None]


def _embedded(response: httpx.Response) -> EmbeddedImages:
    answer = EmbeddingsResponse.model_validate_json(response.content)
    rows = [item.embedding for item in sorted(answer.data, key=lambda item: item.index)]
    return EmbeddedImages([row if isinstance(row, list) else None for row in rows], answer.errors)
