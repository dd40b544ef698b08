"""What the endpoints answer, without HTTP and without Ray: queries in, results out.

Shapes: B images, L labels, E embedding size.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from tinyclip.filters import parse_filter
from tinyclip.schemas import FieldError, LabelScore, SearchRequest, SearchResponse, ZeroShotResponse

from tinyclip_workers.data.image_input import BadImage, read_picture
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.queries.embeddings import Embedded, EmbeddingsQuery, wrong_dimensions
from tinyclip_workers.serving.queries.fetching import Fetcher, is_url
from tinyclip_workers.serving.queries.parsing import Images, ZeroShotQuery
from tinyclip_workers.serving.queries.problems import field_error, invalid
from tinyclip_workers.serving.queries.timings import count, phase
from tinyclip_workers.serving.replica.batching import Admission
from tinyclip_workers.serving.replica.metrics import Watch
from tinyclip_workers.serving.replica.search import Indexes
from tinyclip_workers.serving.replica.text_cache import TextCache
from tinyclip_workers.types import ImageInput, Matrix, Pixels

T = TypeVar("T")
U = TypeVar("U")


class Encoder(Protocol):
    """The engine as the service calls it: many requests at once, computed together."""

    async def images(self, images: Sequence[Pixels]) -> Matrix:
        """(images, E) of squares as the engine takes them."""
        ...

    async def texts(self, texts: Sequence[str]) -> Matrix:
        """(texts, E)."""
        ...


class StudentService:
    """What one model answers."""

    def __init__(
        self, options: ServingOptions, engine: Engine, encoder: Encoder, executor: Executor, watch: Watch | None = None
    ) -> None:
        """`executor` runs decoding and searching, off the event loop; `watch` is told what waits and what is known."""
        self._options, self._engine, self._encoder, self._executor = options, engine, encoder, executor
        watch = watch or Watch(options)
        self._images = Admission("images", options.max_waiting_images, partial(watch.waiting, "images"))
        self._new_texts = Admission("texts", options.max_waiting_texts, partial(watch.waiting, "texts"))
        self._texts = TextCache(self._encode_texts, options.text_cache_bytes, watch.cached)
        self._fetcher = Fetcher(options) if options.image_urls else None
        self._indexes = Indexes(options.artifacts)

    async def zero_shot(self, query: ZeroShotQuery) -> ZeroShotResponse:
        """The best labels of each image by softmax probability over all labels. Raises Refusal for bad images."""
        image_rows, class_LE = await _both(
            self._image_rows(query.images, skip_bad=query.skip_bad_images), self.classes(query.labels, query.templates)
        )
        good_BE = [row for row in image_rows.rows if row is not None]
        if not good_BE:
            return ZeroShotResponse(results=[None] * len(image_rows.rows), model=self._options.model, errors=image_rows.errors)
        rows = iter(_softmax((self._engine.logit_scale * np.stack(good_BE) @ class_LE.T).astype(np.float32)))
        results = [None if row is None else _best(next(rows), query) for row in image_rows.rows]
        return ZeroShotResponse(results=results, model=self._options.model, errors=image_rows.errors)

    async def classes(self, labels: Sequence[str], templates: Sequence[str]) -> Matrix:
        """(labels, E); remembered."""
        count("labels", len(labels))
        with phase("labels"):
            return await self._texts.classes(labels, templates)

    async def embeddings(self, query: EmbeddingsQuery) -> Embedded:
        """One L2-normalised row an input. Raises Refusal: bad images, another number of dimensions than the model's."""
        if query.dimensions not in (None, self._engine.embed_dim):
            raise wrong_dimensions(query.dimensions or 0, self._engine.embed_dim)
        texts, images = query.texts, query.images
        if not images.images:
            return Embedded(await self._text_rows(texts) if texts else [], [])
        if not texts:
            return await self._image_rows(images, skip_bad=query.skip_bad_images)
        image_rows, text_rows = await _both(
            self._image_rows(images, skip_bad=query.skip_bad_images), self._text_rows(texts)
        )
        of_kind = {"image": iter(image_rows.rows), "text": iter(text_rows)}
        return Embedded([next(of_kind[item.kind]) for item in query.inputs], image_rows.errors)

    async def search(self, query: SearchRequest, vector_E: Matrix | None = None) -> SearchResponse:
        """The index's items nearest to a text, an image or else an embedding by cosine.

        Raises Refusal: no such index, or of another model.
        """
        model = self._options.model
        await self._in_thread(lambda: self._indexes.get(query.index, model))  # before anything is encoded
        if query.image is not None:
            [row] = (await self._image_rows(Images([query.image], ["/image"]), skip_bad=False)).rows
        elif query.text is not None:
            [row] = await self._text_rows([query.text])
        else:
            row = vector_E
        assert row is not None
        conditions = parse_filter(query.filter or {})
        with phase("search"):
            generation, found = await self._in_thread(
                lambda: self._indexes.nearest(query.index, model, row, query.top_k, conditions)
            )
        count("hits", len(found.hits))
        return SearchResponse(hits=found.hits, model=model, kind=found.kind, generation=generation.number)

    async def _text_rows(self, texts: Sequence[str]) -> Sequence[Matrix]:
        count("texts", len(texts))
        return list(await self._texts.texts(texts))

    async def _encode_texts(self, texts: list[str]) -> Matrix:
        with self._new_texts.enter(len(texts)):
            return await self._encoder.texts(texts)

    async def _image_rows(self, images: Images, *, skip_bad: bool) -> Embedded:
        """A row an image; null for a bad one if these are skipped, else Refusal naming all bad ones."""
        count("images", len(images.images))
        with self._images.enter(len(images.images)):
            pictures, errors = await self._read_images(images, skip_bad=skip_bad)
            good = [picture for picture in pictures if picture is not None]
            rows: Iterator[Matrix] = iter(await self._encoder.images(good) if good else [])
        return Embedded([None if picture is None else next(rows) for picture in pictures], errors)

    async def _read_images(self, images: Images, *, skip_bad: bool) -> tuple[list[Pixels | None], list[FieldError]]:
        """Preprocessed pictures, and what is wrong with those that are null. Raises Refusal if bad ones are not skipped."""
        given: list[ImageInput | BadImage] = list(images.images)
        if self._fetcher is not None and any(map(is_url, images.images)):
            with phase("fetch"):
                given = list(await asyncio.gather(*map(self._fetched, images.images)))
        with phase("decode"):
            read = await asyncio.gather(*(self._in_thread(partial(self._read, image)) for image in given))
        errors: list[FieldError] = [
            field_error(pointer, image, str(picture))
            for pointer, image, picture in zip(images.pointers, images.images, read, strict=True)
            if isinstance(picture, BadImage)
        ]
        if errors and not skip_bad:
            raise invalid(*errors)
        return [None if isinstance(picture, BadImage) else picture for picture in read], errors

    async def _fetched(self, image: ImageInput) -> ImageInput | BadImage:
        if self._fetcher is None or isinstance(image, bytes) or not is_url(image):
            return image
        try:
            return await self._fetcher.fetch(image)
        except BadImage as bad:
            return bad

    def _read(self, image: ImageInput | BadImage) -> Pixels | BadImage:
        if isinstance(image, BadImage):
            return image
        try:
            return read_picture(image, self._options.max_image_bytes, self._engine.image_size)
        except BadImage as bad:
            return bad

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


def _best(scores_L: Matrix, query: ZeroShotQuery) -> list[LabelScore]:
    order = np.argsort(-scores_L, kind="stable")[: query.top_k]
    return [LabelScore(label=query.labels[i], score=float(scores_L[i])) for i in order]


def _softmax(logits_BL: Matrix) -> Matrix:
    exp_BL = np.exp(logits_BL - logits_BL.max(axis=1, keepdims=True))
    scores_BL: Matrix = exp_BL / exp_BL.sum(axis=1, keepdims=True)
    return scores_BL


async def _both(one: Coroutine[Any, Any, T], other: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Both at the same time; the one is not left running if the other fails."""
    try:
        async with asyncio.TaskGroup() as group:
            first, second = group.create_task(one), group.create_task(other)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return first.result(), second.result()
