"""What one replica of a deployment is, whatever brings it its requests."""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from tinyclip.schemas import LabelSet

from tinyclip_workers.retrieval.files import newest
from tinyclip_workers.runtime.store import Store
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.queries.parsing import ZeroShotQuery
from tinyclip_workers.serving.queries.problems import Refusal
from tinyclip_workers.serving.queries.timings import current
from tinyclip_workers.serving.replica.access import Access
from tinyclip_workers.serving.replica.hosted import HostedModels
from tinyclip_workers.serving.replica.label_sets import LabelSets
from tinyclip_workers.serving.replica.metrics import Watch
from tinyclip_workers.serving.replica.served_model import ServedModel

log = logging.getLogger(__name__)

T = TypeVar("T")


class Student:
    """One replica: who may ask, what is told of it, the label sets of the deployment, and its models."""

    def __init__(self, options: ServingOptions) -> None:
        """Raises FileNotFoundError or ValueError for a model folder that cannot be served."""
        self.options = options
        self.began = int(time.time())
        self.access = Access(options)
        self.watch = Watch(options)
        self.store = Store(options.artifacts)
        self.label_sets = LabelSets(options.name, self.store)
        self.models = HostedModels(options, lambda its: ServedModel(its, self.watch))
        self._preparing: set[asyncio.Task[None]] = set()

    async def answering(self, asked: str | None, *, canary: bool = False) -> ServedModel:
        """The model that a query names; for one that names no version, the deployment's own.

        With `canary` such a query goes to the canary now and then, as its weight says; embeddings of two versions cannot be
        compared, so what asks for these goes to one. Raises Refusal.
        """
        model = await (self.models.one_for(asked) if canary else self.models.named(asked))
        return _noted(model)

    async def searching(self, index: str) -> ServedModel:
        """The model whose embeddings an index has, if it is here, else the deployment's own, which refuses. Raises Refusal."""
        if len(self.models.names()) == 1:
            return _noted(self.models.own)
        return _noted(await self.models.whose(await self.in_thread(lambda: self._model_of(index))))

    def _model_of(self, index: str) -> str:
        generation = newest(self.store, index)
        return self.models.own.name if generation is None else generation.model  # whose search says what is wrong, if it is

    async def with_labels(self, query: ZeroShotQuery) -> ZeroShotQuery:
        """The query with the labels and templates of the set that it names, if it does. Raises Refusal."""
        if query.label_set is None:
            return query
        found = await self.label_sets.get(query.label_set)
        return dataclasses.replace(query, labels=found.labels, templates=found.templates)

    def prepare(self, labels: LabelSet) -> None:
        """Compute a set's embeddings now, before somebody asks."""
        task = asyncio.create_task(self._prepare(labels))
        self._preparing.add(task)
        task.add_done_callback(self._preparing.discard)

    async def _prepare(self, labels: LabelSet) -> None:
        try:
            await self.models.own.service.classes(labels.labels, labels.templates)
        except Refusal as busy:
            log.info("label set %s is not prepared: %s", labels.name, busy)  # its first request will

    async def in_thread(self, call: Callable[[], T]) -> T:
        """For what takes too long on the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.models.own.replica.threads, call)


def _noted(model: ServedModel) -> ServedModel:
    """For the answer's headers, the metrics and the log."""
    if (asked := current()) is not None:
        asked.model = model.name
    return model
