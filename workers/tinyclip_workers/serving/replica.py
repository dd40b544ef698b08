"""What one replica of a deployment holds: the engine, its threads, and the service that answers with them."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from tinyclip_workers.images import Pixels
from tinyclip_workers.serving.engine import Matrix, engine_for
from tinyclip_workers.serving.groups import cut, split
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.service import StudentService

T = TypeVar("T")


class Replica:
    """Encodes groups, the share of one request each; `image_batch` and `text_batch` gather those of many requests.

    The engine has one thread to itself, decoding and searching a few others: nothing that computes runs on the event loop.
    """

    def __init__(
        self,
        options: ServingOptions,
        image_batch: Callable[[Pixels], Awaitable[Matrix]],
        text_batch: Callable[[list[str]], Awaitable[Matrix]],
    ) -> None:
        torch.set_num_threads(options.threads)
        self.engine = engine_for(options)
        self._options, self._image_batch, self._text_batch = options, image_batch, text_batch
        self._compute = ThreadPoolExecutor(1, "engine")
        decoders = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "decode")
        self.service = StudentService(options, self.engine, self, decoders)

    async def images(self, images: Sequence[Pixels]) -> Matrix:
        """(images, E), computed together with those of other requests."""
        groups = [np.stack(group) for group in cut(images, self._options.max_batch_images)]
        return np.concatenate(await asyncio.gather(*map(self._image_batch, groups)))

    async def texts(self, texts: Sequence[str]) -> Matrix:
        """(texts, E), computed together with those of other requests."""
        groups = cut(texts, self._options.max_batch_texts)
        return np.concatenate(await asyncio.gather(*map(self._text_batch, groups)))

    async def encode_images(self, groups: list[Pixels]) -> list[Matrix]:
        """One batch."""
        return split(await self._in_engine(lambda: self.engine.encode_image(np.concatenate(groups))), groups)

    async def encode_texts(self, groups: list[list[str]]) -> list[Matrix]:
        """One batch."""
        texts = [text for group in groups for text in group]
        return split(await self._in_engine(lambda: self.engine.encode_text(texts)), groups)

    async def _in_engine(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._compute, call)
