"""One loaded model version: its engine, the batch queues in front of it, and its answers."""

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from tinyclip_workers.engines.batch_size import best_batch_size
from tinyclip_workers.engines.load import load_engine
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.replica.batching import BatchQueue
from tinyclip_workers.serving.replica.inference import InferenceService
from tinyclip_workers.serving.replica.metrics import ServingMetrics
from tinyclip_workers.types import Matrix, Pixels
from tinyclip_workers.versions.golden import check_golden_queries


class ServedModel:
    """A model version in one replica. A replica with several models has one of these for each.

    Nothing that computes runs on the event loop: the engine has one thread to itself, decoding and searching share `threads`.
    """

    def __init__(self, options: ServingOptions, metrics: ServingMetrics) -> None:
        """Load the model. Raises FileNotFoundError or ValueError for a folder that cannot be served, such as GoldenMismatch."""
        torch.set_num_threads(options.threads)
        self.name = options.model
        self.engine = load_engine(
            options.model_uri, options.engine, threads=options.threads, min_cosine=options.engine_min_cosine
        )
        check_golden_queries(self.engine, options.model_uri)
        size, wait_s = best_batch_size(self.engine, options.max_batch_images), options.batch_wait_s
        self.engine.report.batch = size
        self.threads = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "decode")
        self._engine_thread = ThreadPoolExecutor(1, "engine")
        self._images: BatchQueue[Pixels] = BatchQueue(
            self._compute_images, size, wait_s, partial(metrics.record_batch, "images")
        )
        self._texts: BatchQueue[str] = BatchQueue(
            self._compute_texts, options.max_batch_texts, wait_s, partial(metrics.record_batch, "texts")
        )
        self.inference = InferenceService(options, self.engine, self, self.threads, metrics)

    async def encode_images(self, images: Sequence[Pixels]) -> Matrix:
        """Return (images, E), computed in batches with the images of other requests."""
        return await self._images.encode(images)

    async def encode_texts(self, texts: Sequence[str]) -> Matrix:
        """Return (texts, E), computed in batches with the texts of other requests."""
        return await self._texts.encode(texts)

    async def _compute_images(self, batch: Sequence[Pixels]) -> Matrix:
        return await self._in_engine_thread(lambda: self.engine.encode_image(np.stack(list(batch))))

    async def _compute_texts(self, batch: Sequence[str]) -> Matrix:
        return await self._in_engine_thread(lambda: self.engine.encode_text(batch))

    async def _in_engine_thread(self, call: Callable[[], Matrix]) -> Matrix:
        return await asyncio.get_running_loop().run_in_executor(self._engine_thread, call)
