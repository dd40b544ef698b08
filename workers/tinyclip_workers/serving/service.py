"""What the endpoints answer, without HTTP and without Ray: queries in, results out.

Shapes: B images, L labels, E embedding size.
"""

import asyncio
import base64
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Protocol

import numpy as np
from tinyclip.schemas import (
    JSON,
    EmbeddingsRequest,
    FieldError,
    Hit,
    LabelScore,
    SearchRequest,
    SearchResponse,
    ZeroShotResponse,
)

from tinyclip_workers.images import Pixels
from tinyclip_workers.serving.engine import Engine, Matrix
from tinyclip_workers.serving.inputs import BadImage, read_picture
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import field_error, invalid
from tinyclip_workers.serving.queries import ImageInput, Images, ZeroShotQuery
from tinyclip_workers.serving.search import Indexes
from tinyclip_workers.serving.text_cache import TextCache


class Encoder(Protocol):
    """The engine as the service calls it: many requests at once, computed together."""

    async def images(self, images: Sequence[Pixels]) -> Matrix:
        """(images, E) of squares as the engine takes them."""
        ...

    async def texts(self, texts: Sequence[str]) -> Matrix:
        """(texts, E)."""
        ...


class StudentService:
    """One deployed student."""

    def __init__(self, options: ServingOptions, engine: Engine, encoder: Encoder, executor: Executor) -> None:
        """`executor` runs decoding and searching, so that the event loop goes on."""
        self._options, self._engine, self._encoder, self._executor = options, engine, encoder, executor
        self._texts = TextCache(lambda texts: encoder.texts(texts), options.text_cache_bytes)
        self._indexes = Indexes(options.artifacts)

    async def zero_shot(self, query: ZeroShotQuery) -> ZeroShotResponse:
        """The best labels of each image by softmax probability over all labels. Raises Refusal for bad images."""
        pictures = await self._read_images(query.images, skip_bad=query.skip_bad_images)
        good = [picture for picture in pictures if picture is not None]
        if not good:
            return ZeroShotResponse(results=[None] * len(pictures), model=self._options.model)
        image_BE, class_LE = await asyncio.gather(self._encoder.images(good), self._texts.classes(query.labels, query.templates))
        rows = iter(_softmax((self._engine.logit_scale * image_BE @ class_LE.T).astype(np.float32)))
        results = [None if picture is None else _best(next(rows), query) for picture in pictures]
        return ZeroShotResponse(results=results, model=self._options.model)

    async def embeddings(self, query: EmbeddingsRequest) -> JSON:
        """OpenAI's answer: L2-normalised embeddings as numbers or as base64 of little-endian float32."""
        inputs = [query.input] if isinstance(query.input, str) else query.input
        if query.modality == "image":
            rows = await self._encoder.images(await self._good_images(Images(inputs, _pointers(query.input))))
        else:
            rows = await self._texts.texts(inputs)
        data = [
            {"object": "embedding", "index": index, "embedding": _encoded(row, query.encoding_format)}
            for index, row in enumerate(rows)
        ]
        tokens = sum(len(text.split()) for text in inputs) if query.modality == "text" else 0
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": self._options.model, "usage": usage}

    async def search(self, query: SearchRequest) -> SearchResponse:
        """The index's items nearest to a text or an image by cosine. Raises Refusal: no such index, or of another model."""
        index = await self._in_thread(lambda: self._indexes.get(query.index, self._options.model))
        if query.image is not None:
            rows = await self._encoder.images(await self._good_images(Images([query.image], ["/image"])))
        else:
            rows = await self._texts.texts([query.text or ""])
        hits: list[Hit] = await self._in_thread(lambda: index.nearest(rows[0], query.top_k))
        return SearchResponse(hits=hits, model=self._options.model)

    async def _good_images(self, images: Images) -> list[Pixels]:
        return [picture for picture in await self._read_images(images, skip_bad=False) if picture is not None]

    async def _read_images(self, images: Images, *, skip_bad: bool) -> list[Pixels | None]:
        """Preprocessed pictures; null for a bad one if these are skipped, else Refusal naming all bad ones."""
        read = await asyncio.gather(*(self._in_thread(partial(self._read, image)) for image in images.images))
        errors: list[FieldError] = [
            field_error(pointer, image, str(picture))
            for pointer, image, picture in zip(images.pointers, images.images, read, strict=True)
            if isinstance(picture, BadImage)
        ]
        if errors and not skip_bad:
            raise invalid(*errors)
        return [None if isinstance(picture, BadImage) else picture for picture in read]

    def _read(self, image: ImageInput) -> Pixels | BadImage:
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


def _encoded(row_E: Matrix, encoding: str) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(row_E.astype("<f4").tobytes()).decode()
    return [float(value) for value in row_E]


def _pointers(given: str | list[str]) -> list[str]:
    return ["/input"] if isinstance(given, str) else [f"/input/{i}" for i in range(len(given))]
