"""One replica of a deployment, independent of the server that delivers its requests."""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tinyclip.schemas import LabelSet

from tinyclip_workers.retrieval.commits import newest
from tinyclip_workers.serving import request_context
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import ProblemError
from tinyclip_workers.serving.queries.zero_shot import ZeroShotQuery
from tinyclip_workers.serving.replica.access import Access
from tinyclip_workers.serving.replica.hosted_models import HostedModels
from tinyclip_workers.serving.replica.label_sets import LabelSets
from tinyclip_workers.serving.replica.metrics import ServingMetrics
from tinyclip_workers.serving.replica.served_model import ServedModel
from tinyclip_workers.serving.replica.store_calls import call_store, open_limited_store

log = logging.getLogger(__name__)

T = TypeVar("T")


class Replica:
    """A deployment's access rules, metrics, label sets and models in one process."""

    def __init__(self, options: ServingOptions) -> None:
        """Load the deployment's model. Raises FileNotFoundError or ValueError for a model folder that cannot be served."""
        self.options = options
        self.started_at = int(time.time())
        self.access = Access(options)
        self.metrics = ServingMetrics(options)
        self.store = open_limited_store(options.artifacts)
        self.label_sets = LabelSets(options.name, self.store)
        self.models = HostedModels(options, lambda model_options: ServedModel(model_options, self.metrics))
        self._warm_ups: set[asyncio.Task[None]] = set()

    async def model_for(self, name: str | None, *, canary: bool = False) -> ServedModel:
        """Return the model that a query names, or the deployment's own if it names no version. Raises ProblemError.

        With `canary` the canary gets its share of the queries that name no version. Embeddings of two versions cannot be
        compared, so queries for embeddings never use it.
        """
        return _recorded(await (self.models.route(name) if canary else self.models.get(name)))

    async def model_for_index(self, index: str) -> ServedModel:
        """Return the model whose embeddings an index holds, or else the deployment's own, whose search reports the mismatch.

        Raises ProblemError.
        """
        if len(self.models.names()) == 1:
            return _recorded(self.models.own)
        return _recorded(await self.models.for_embeddings_of(await call_store(lambda: self._model_name_of(index))))

    def _model_name_of(self, index: str) -> str:
        generation = newest(self.store, index)
        return self.models.own.name if generation is None else generation.model

    async def resolve_label_set(self, query: ZeroShotQuery) -> ZeroShotQuery:
        """Return the query with the labels and templates of the label set that it names, if any. Raises ProblemError."""
        if query.label_set is None:
            return query
        found = await self.label_sets.get(query.label_set)
        return dataclasses.replace(query, labels=found.labels, templates=found.templates)

    def warm_up(self, labels: LabelSet) -> None:
        """Compute the embeddings of a label set in the background, before its first query."""
        task = asyncio.create_task(self._warm_up(labels))
        self._warm_ups.add(task)
        task.add_done_callback(self._warm_ups.discard)

    async def _warm_up(self, labels: LabelSet) -> None:
        try:
            await self.models.own.inference.classifier(labels.labels, labels.templates)
        except ProblemError as busy:
            log.info("the embeddings of label set %s are left to its first query: %s", labels.name, busy)

    def health(self) -> dict[str, Any]:
        own = self.models.own
        return {
            "status": "ok",
            "deployment": self.options.name,
            "model": own.name,
            "engine": own.engine.name,
            "embed_dim": own.engine.embed_dim,
            "engine_report": own.engine.report.model_dump(mode="json"),
            "canary": self.models.canary_state(),
        }

    async def run_in_thread(self, call: Callable[[], T]) -> T:
        """Run what would block the event loop for too long."""
        return await asyncio.get_running_loop().run_in_executor(self.models.own.threads, call)


def _recorded(model: ServedModel) -> ServedModel:
    """Record the model for the answer's headers, the metrics and the log."""
    if (context := request_context.current()) is not None:
        context.model = model.name
    return model
