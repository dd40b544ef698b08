"""Queries to a deployed student: zero-shot classification, embeddings, search."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, overload

import httpx

from tinyclip._http.calls import Call, as_model
from tinyclip._http.methods import AsyncResource, Resource, ResourceMethods, bound_method, operation
from tinyclip._http.transport import Transport
from tinyclip._resources.images import ImageLike, encode
from tinyclip._resources.label_sets import AsyncLabelSets, LabelSets
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
"""One L2-normalised embedding per input."""

Filter = Mapping[str, Any]
"""Conditions on metadata: `{"year": {"gte": 2000}, "camera.make": "Leica", "tags": ["red", "blue"]}`."""


@dataclass(frozen=True)
class EmbeddedImages:
    """Embeddings of images, of which invalid ones were skipped."""

    vectors: list[list[float] | None]
    """In the order of the images, L2-normalised; None for an image that was skipped."""
    errors: list[FieldError]
    """Why images were skipped."""


class Target(Protocol):
    """A deployment, and of several models the one to query: a `Student`."""

    endpoint: str
    model: str | None


def zero_shot(
    student: Target,
    images: Sequence[ImageLike],
    labels: Sequence[str] | None = None,
    *,
    label_set: str | None = None,
    templates: Sequence[str] | None = None,
    top_k: int = 5,
    on_error: OnError = "fail",
) -> Call[ZeroShotResponse]:
    """Return the `top_k` likeliest labels of each image with their probabilities over all labels.

    Labels are given, or are those of a registered set. With `on_error="skip"` the result of an invalid image is None and its
    reason is among the errors; otherwise it fails the request."""
    body = ZeroShotRequest.model_construct(images=[encode(image) for image in images], top_k=top_k)
    if labels is not None:
        body.labels = list(labels)
    if label_set is not None:
        body.label_set = label_set
    if templates is not None:
        body.templates = list(templates)
    if on_error != "fail":
        body.on_error = on_error
    if student.model is not None:
        body.model = student.model
    document = body.model_dump(mode="json", exclude_unset=True)
    return Call("POST", f"{student.endpoint}/zero-shot", as_model(ZeroShotResponse), body=document)


def embed_texts(student: Target, texts: Sequence[str], *, dimensions: int | None = None) -> Call[Vectors]:
    """Return one L2-normalised embedding per text, of `dimensions` numbers if the model was trained for that size."""
    body = EmbeddingsRequest(input=list(texts), modality="text", model=student.model, dimensions=dimensions)
    return _embed(student, body, _vectors)


def embed_images(student: Target, images: Sequence[ImageLike], *, dimensions: int | None = None) -> Call[Vectors]:
    encoded = [encode(image) for image in images]
    body = EmbeddingsRequest(input=encoded, modality="image", model=student.model, dimensions=dimensions)
    return _embed(student, body, _vectors)


def embed_valid_images(
    student: Target, images: Sequence[ImageLike], *, dimensions: int | None = None
) -> Call[EmbeddedImages]:
    encoded = [encode(image) for image in images]
    body = EmbeddingsRequest(
        input=encoded, modality="image", model=student.model, on_error="skip", dimensions=dimensions
    )  # fmt: skip
    return _embed(student, body, _embedded)


def search(
    student: Target,
    index: str,
    text: str | None = None,
    *,
    image: ImageLike | None = None,
    item: str | None = None,
    top_k: int = 10,
    filter: Filter | None = None,
    compatible: bool = False,
) -> Call[SearchResponse]:
    """Return the `top_k` items of an index nearest to a text, an image or an item, among those whose metadata meets the filter.

    `item`: the id of an item of the index; it is not among its own hits.
    `compatible`: also of an index of the model's teacher or student, if the two were measured to be compatible."""
    encoded = None if image is None else encode(image)
    conditions = None if filter is None else dict(filter)
    body = SearchRequest.model_construct(index=index, text=text, image=encoded, top_k=top_k, filter=conditions)
    if item is not None:
        body.item = item
    if compatible:
        body.compatible = True
    document = body.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    return Call("POST", f"{student.endpoint}/search", as_model(SearchResponse), body=document)


def health(student: Target) -> Call[dict[str, Any]]:
    """Return a replica's report: its model, its inference engine, and how that was chosen."""
    return Call("GET", f"{student.endpoint}/healthz", lambda response: dict(response.json()))


def _embed(student: Target, body: EmbeddingsRequest, read: Callable[[httpx.Response], T]) -> Call[T]:
    return Call("POST", f"{student.endpoint}/embeddings", read, body=body.model_dump(mode="json", exclude_none=True))


def _vectors(response: httpx.Response) -> Vectors:
    return [vector for vector in _embedded(response).vectors if vector is not None]


def _embedded(response: httpx.Response) -> EmbeddedImages:
    document = EmbeddingsResponse.model_validate_json(response.content)
    rows = [item.embedding for item in sorted(document.data, key=lambda item: item.index)]
    return EmbeddedImages([row if isinstance(row, list) else None for row in rows], document.errors)


class StudentMethods(ResourceMethods):
    def __init__(self, transport: Transport, endpoint: str, model: str | None = None) -> None:
        super().__init__(transport)
        self.endpoint = endpoint
        self.model = model

    zero_shot = bound_method(zero_shot)
    embed_texts = bound_method(embed_texts)
    search = bound_method(search)
    health = bound_method(health)

    @operation
    async def classify(
        self,
        image: ImageLike,
        labels: Sequence[str] | None = None,
        *,
        label_set: str | None = None,
        templates: Sequence[str] | None = None,
        top_k: int = 5,
    ) -> list[LabelScore]:
        """Return the `top_k` likeliest labels of one image."""
        call = zero_shot(self, [image], labels, label_set=label_set, templates=templates, top_k=top_k)
        return (await self._transport.send(call)).results[0] or []

    @operation
    async def _embed_images(self, images: Sequence[ImageLike], on_error: OnError, dimensions: int | None) -> Any:
        if on_error == "skip":
            return await self._transport.send(embed_valid_images(self, images, dimensions=dimensions))
        return await self._transport.send(embed_images(self, images, dimensions=dimensions))


class Student(StudentMethods, Resource):
    """A deployed student; of a deployment with several models, the one named `model`.

    Images are paths, bytes, http(s) URLs or data URIs."""

    @property
    def label_sets(self) -> LabelSets:
        """The deployment's label sets."""
        return LabelSets(self._transport, self.endpoint)

    @overload
    def embed_images(
        self, images: Sequence[ImageLike], *, on_error: Literal["fail"] = "fail", dimensions: int | None = None
    ) -> Vectors: ...
    @overload
    def embed_images(
        self, images: Sequence[ImageLike], *, on_error: Literal["skip"], dimensions: int | None = None
    ) -> EmbeddedImages: ...
    def embed_images(
        self, images: Sequence[ImageLike], *, on_error: OnError = "fail", dimensions: int | None = None
    ) -> Any:
        """Return one L2-normalised embedding per image, of `dimensions` numbers if the model was trained for that size.

        With `on_error="skip"` the vector of an invalid image is None and its reason is among the errors; otherwise it fails the
        request."""
        return self._embed_images(images, on_error, dimensions)


class AsyncStudent(StudentMethods, AsyncResource):
    """A deployed student; see `Student`."""

    @property
    def label_sets(self) -> AsyncLabelSets:
        """The deployment's label sets."""
        return AsyncLabelSets(self._transport, self.endpoint)

    @overload
    async def embed_images(
        self, images: Sequence[ImageLike], *, on_error: Literal["fail"] = "fail", dimensions: int | None = None
    ) -> Vectors: ...
    @overload
    async def embed_images(
        self, images: Sequence[ImageLike], *, on_error: Literal["skip"], dimensions: int | None = None
    ) -> EmbeddedImages: ...
    async def embed_images(
        self, images: Sequence[ImageLike], *, on_error: OnError = "fail", dimensions: int | None = None
    ) -> Any:
        """Return one L2-normalised embedding per image; see `Student.embed_images`."""
        return await self._embed_images(images, on_error, dimensions)
