"""The answers of one model: from checked queries to scores, embeddings and search hits.

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

from tinyclip_workers.data.image_input import BadImage, read_image
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import field_error, invalid_input
from tinyclip_workers.serving.queries.embeddings import EmbeddingRows, EmbeddingsQuery
from tinyclip_workers.serving.queries.fetching import Fetcher, is_url
from tinyclip_workers.serving.queries.inputs import Images
from tinyclip_workers.serving.queries.zero_shot import ZeroShotQuery
from tinyclip_workers.serving.replica.batching import Admission
from tinyclip_workers.serving.replica.indexes import Indexes
from tinyclip_workers.serving.replica.metrics import ServingMetrics
from tinyclip_workers.serving.replica.text_cache import TextCache
from tinyclip_workers.serving.request_context import add_count, phase
from tinyclip_workers.types import ImageInput, Matrix, Pixels

T = TypeVar("T")
U = TypeVar("U")

INLINE_TEXTS = 16
"""Texts whose tokens are counted on the event loop, in well under a millisecond; more of them in a thread."""
MAX_SHOWN_LABELS, MAX_SHOWN_LABEL = 5, 50
"""Labels in a warning, and characters of each."""


class Encoder(Protocol):
    """An engine that is called by many requests at once and batches their items."""

    async def encode_images(self, images: Sequence[Pixels]) -> Matrix:
        """Return (images, E) of squares in the engine's image size."""
        ...

    async def encode_texts(self, texts: Sequence[str]) -> Matrix:
        """Return (texts, E)."""
        ...


class InferenceService:
    """The inference operations of one model. For one event loop."""

    def __init__(
        self, options: ServingOptions, engine: Engine, encoder: Encoder, executor: Executor, metrics: ServingMetrics | None = None
    ) -> None:
        """`executor` runs decoding and searching, off the event loop."""
        self._options, self._engine, self._encoder, self._executor = options, engine, encoder, executor
        metrics = metrics or ServingMetrics(options)
        self._images = Admission("images", options.max_waiting_images, partial(metrics.set_waiting, "images"))
        self._new_texts = Admission("texts", options.max_waiting_texts, partial(metrics.set_waiting, "texts"))
        self._texts = TextCache(self._encode_texts, options.text_cache_bytes, metrics.record_cached_texts)
        self._fetcher = Fetcher(options) if options.image_urls else None
        self._indexes = Indexes(options.artifacts)

    async def zero_shot(self, query: ZeroShotQuery) -> ZeroShotResponse:
        """Return the best labels of each image by softmax over all labels. Raises ProblemError for bad images."""
        images, classifier_LE = await _gather_both(
            self._image_rows(query.images, skip_bad=query.skip_bad_images), self.classifier(query.labels, query.templates)
        )
        results = await self._in_thread(lambda: self._results(images.rows, classifier_LE, query))
        return ZeroShotResponse(results=results, model=self._options.model, errors=images.errors)

    def _results(
        self, rows: Sequence[Matrix | None], classifier_LE: Matrix, query: ZeroShotQuery
    ) -> list[list[LabelScore] | None]:
        results: list[list[LabelScore] | None] = []
        for row in rows:  # one at a time: all logits of a large request together take much memory
            if row is None:
                results.append(None)
            else:
                [scores_L] = _softmax((self._engine.logit_scale * row[None] @ classifier_LE.T).astype(np.float32))
                results.append(_best_labels(scores_L, query))
        return results

    async def classifier(self, labels: Sequence[str], templates: Sequence[str]) -> Matrix:
        """Return the (labels, E) embeddings of the labels, cached."""
        add_count("labels", len(labels))
        await self._count_unknown_tokens([*labels, *(template.replace("{}", " ") for template in templates)])
        with phase("labels"):
            return await self._texts.classifier(labels, templates)

    async def label_warnings(self, labels: Sequence[str], templates: Sequence[str]) -> list[str]:
        """Return a warning about labels and templates with words that the model's vocabulary does not have."""
        count = self._engine.unknown_tokens
        if count is None:
            return []
        texts = [*labels, *(template.replace("{}", " ") for template in templates)]
        unknown = await self._in_thread(lambda: [text for text in texts if count(text)])
        if not unknown:
            return []
        shown = ", ".join(repr(text[:MAX_SHOWN_LABEL].strip()) for text in unknown[:MAX_SHOWN_LABELS])
        return [
            f"{len(unknown)} of {len(texts)} labels and templates have words that are not in the reduced vocabulary of "
            f"{self._options.model} and are read as smaller tokens: {shown}{', …' if len(unknown) > MAX_SHOWN_LABELS else ''}; "
            "use a version with the whole vocabulary for them"
        ]

    async def embeddings(self, query: EmbeddingsQuery) -> EmbeddingRows:
        """Return one L2-normalised row per input, of the requested dimensions.

        Raises ProblemError for bad images and for dimensions that the model was not trained for.
        """
        self._check_dimensions(query.dimensions)
        found = await self._whole_embeddings(query)
        if query.dimensions in (None, self._engine.embed_dim):
            return found
        return EmbeddingRows([None if row is None else leading(row, query.dimensions) for row in found.rows], found.errors)

    def _check_dimensions(self, dimensions: int | None) -> None:
        whole, sizes = self._engine.embed_dim, self._engine.embedding_sizes
        if dimensions in (None, whole, *sizes):
            return
        if sizes:
            message = f"the model was trained for {', '.join(map(str, sizes[:-1]))} and {whole} numbers; give one of these"
        else:
            message = (
                f"the model's embeddings have {whole} numbers and were not trained to be cut: omit dimensions, or train a model "
                "with objective.embedding_sizes"
            )
        raise invalid_input(field_error("/dimensions", dimensions, message))

    async def _whole_embeddings(self, query: EmbeddingsQuery) -> EmbeddingRows:
        texts, images = query.texts, query.images
        if not images.images:
            return EmbeddingRows(await self._text_rows(texts) if texts else [], [])
        if not texts:
            return await self._image_rows(images, skip_bad=query.skip_bad_images)
        image_rows, text_rows = await _gather_both(
            self._image_rows(images, skip_bad=query.skip_bad_images), self._text_rows(texts)
        )
        rows = {"image": iter(image_rows.rows), "text": iter(text_rows)}
        return EmbeddingRows([next(rows[item.modality]) for item in query.inputs], image_rows.errors)

    async def search(self, query: SearchRequest, vector_E: Matrix | None = None) -> SearchResponse:
        """Return the index's items nearest by cosine to the query's text, image or item, or else to `vector_E`.

        Raises ProblemError for an index that does not exist or holds another model's embeddings, and for an unknown item.
        """
        model = self._options.model
        await self._indexes.open(query.index, model, compatible=query.compatible)  # fail before anything is encoded
        if query.item is not None:
            return await self._search_like(query, query.item)
        if query.image is not None:
            [row] = (await self._image_rows(Images([query.image], ["/image"]), skip_bad=False)).rows
        elif query.text is not None:
            [row] = await self._text_rows([query.text])
        else:
            row = vector_E
        assert row is not None
        conditions = parse_filter(query.filter or {})
        with phase("search"):
            generation, found = await self._indexes.nearest(
                query.index, model, row, query.top_k, conditions, self._executor, compatible=query.compatible
            )
        add_count("hits", len(found.hits))
        return SearchResponse(hits=found.hits, model=model, kind=found.kind, generation=generation.number)

    async def _search_like(self, query: SearchRequest, item: str) -> SearchResponse:
        """Search with the stored vector of an item."""
        model, conditions = self._options.model, parse_filter(query.filter or {})
        with phase("search"):
            generation, found = await self._indexes.nearest_to_item(
                query.index, model, item, query.top_k, conditions, self._executor, compatible=query.compatible
            )
        add_count("hits", len(found.hits))
        return SearchResponse(hits=found.hits, model=model, kind=found.kind, generation=generation.number)

    async def _text_rows(self, texts: Sequence[str]) -> Sequence[Matrix]:
        add_count("texts", len(texts))
        await self._count_unknown_tokens(texts)
        return list(await self._texts.embeddings(texts))

    async def _count_unknown_tokens(self, texts: Sequence[str]) -> None:
        """Count the tokens that a reduced vocabulary does not have, for metrics, the log and the answer's headers."""
        count = self._engine.unknown_tokens
        if count is None:
            return
        if len(texts) <= INLINE_TEXTS:
            add_count("unknown_tokens", sum(map(count, texts)))
        else:
            add_count("unknown_tokens", await self._in_thread(lambda: sum(map(count, texts))))

    async def _encode_texts(self, texts: list[str]) -> Matrix:
        with self._new_texts.enter(len(texts)):
            return await self._encoder.encode_texts(texts)

    async def _image_rows(self, images: Images, *, skip_bad: bool) -> EmbeddingRows:
        """Return a row per image. Bad images get None if they are skipped, or else raise a ProblemError that names them all."""
        add_count("images", len(images.images))
        with self._images.enter(len(images.images)):
            squares, errors = await self._read_images(images, skip_bad=skip_bad)
            good = [square for square in squares if square is not None]
            rows: Iterator[Matrix] = iter(await self._encoder.encode_images(good) if good else [])
        return EmbeddingRows([None if square is None else next(rows) for square in squares], errors)

    async def _read_images(self, images: Images, *, skip_bad: bool) -> tuple[list[Pixels | None], list[FieldError]]:
        """Return the preprocessed images, None for bad ones, and the errors of these.

        Raises ProblemError for bad images unless they are skipped.
        """
        given: list[ImageInput | BadImage] = list(images.images)
        if self._fetcher is not None and any(map(is_url, images.images)):
            with phase("fetch"):
                given = await _gather([self._fetch(image) for image in images.images])
        with phase("decode"):
            read = await asyncio.gather(*(self._in_thread(partial(self._read, image)) for image in given))
        errors: list[FieldError] = [
            field_error(pointer, image, str(square))
            for pointer, image, square in zip(images.pointers, images.images, read, strict=True)
            if isinstance(square, BadImage)
        ]
        if errors and not skip_bad:
            raise invalid_input(*errors)
        return [None if isinstance(square, BadImage) else square for square in read], errors

    async def _fetch(self, image: ImageInput) -> ImageInput | BadImage:
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
            return read_image(image, self._options.max_image_bytes, self._engine.image_size)
        except BadImage as bad:
            return bad

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


def leading(row_E: Matrix, size: int) -> Matrix:
    """Return the leading numbers of an embedding, of unit length again."""
    cut = row_E[:size]
    return cut / max(float(np.linalg.norm(cut)), 1e-12)


def _best_labels(scores_L: Matrix, query: ZeroShotQuery) -> list[LabelScore]:
    order = np.argsort(-scores_L, kind="stable")[: query.top_k]
    return [LabelScore(label=query.labels[i], score=float(scores_L[i])) for i in order]


def _softmax(logits_BL: Matrix) -> Matrix:
    exp_BL = np.exp(logits_BL - logits_BL.max(axis=1, keepdims=True))
    scores_BL: Matrix = exp_BL / exp_BL.sum(axis=1, keepdims=True)
    return scores_BL


async def _gather_both(one: Coroutine[Any, Any, T], other: Coroutine[Any, Any, U]) -> tuple[T, U]:
    first, second = await _gather([one, other])
    return first, second


async def _gather(calls: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run all concurrently; if one fails, cancel the others and raise the error itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
