"""One model as a replica serves it: the engine, the queues before it, the texts that it knows, and the answers."""

from collections.abc import Sequence
from functools import partial

from tinyclip_workers.engines.batch_size import batch_that_pays
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.replica.batching import BatchQueue
from tinyclip_workers.serving.replica.compute import Replica
from tinyclip_workers.serving.replica.metrics import Watch
from tinyclip_workers.serving.replica.service import StudentService
from tinyclip_workers.types import Matrix, Pixels
from tinyclip_workers.versions.golden import expect_golden


class ServedModel:
    """All that belongs to one model version; a replica with several has several of these."""

    def __init__(self, options: ServingOptions, watch: Watch) -> None:
        """Raises FileNotFoundError or ValueError for a model folder that cannot be served, as GoldenMismatch."""
        self.name = options.model
        self.replica = Replica(options)
        expect_golden(self.replica.engine, options.model_uri)
        size, wait_s = batch_that_pays(self.replica.engine, options.max_batch_images), options.batch_wait_s
        self.replica.engine.report.batch = size
        self._images: BatchQueue[Pixels] = BatchQueue(
            self.replica.encode_images, size, wait_s, partial(watch.batch, "images")
        )
        self._texts: BatchQueue[str] = BatchQueue(
            self.replica.encode_texts, options.max_batch_texts, wait_s, partial(watch.batch, "texts")
        )
        self.service = StudentService(options, self.replica.engine, self, self.replica.threads, watch)

    async def images(self, images: Sequence[Pixels]) -> Matrix:
        """(images, E), computed together with those of other requests."""
        return await self._images.encode(images)

    async def texts(self, texts: Sequence[str]) -> Matrix:
        """(texts, E), computed together with those of other requests."""
        return await self._texts.encode(texts)
