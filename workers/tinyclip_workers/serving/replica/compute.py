"""An engine and the threads around it: nothing that computes runs on the event loop."""

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from tinyclip_workers.engines.load import load_engine
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.types import Matrix, Pixels

T = TypeVar("T")


class Replica:
    """The engine has one thread to itself, decoding and searching a few others (`threads`)."""

    def __init__(self, options: ServingOptions) -> None:
        torch.set_num_threads(options.threads)
        self.engine = engine_for(options)
        self._compute = ThreadPoolExecutor(1, "engine")
        self.threads = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "decode")

    async def encode_images(self, images: Sequence[Pixels]) -> Matrix:
        """(images, E) of one batch."""
        return await self._in_engine(lambda: self.engine.encode_image(np.stack(list(images))))

    async def encode_texts(self, texts: Sequence[str]) -> Matrix:
        """(texts, E) of one batch."""
        return await self._in_engine(lambda: self.engine.encode_text(texts))

    async def _in_engine(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._compute, call)


def engine_for(options: ServingOptions) -> Engine:
    """A replica's. Raises as `load_engine`."""
    return load_engine(options.model_uri, options.engine, threads=options.threads, min_cosine=options.engine_min_cosine)
