"""The models of one replica: the deployment's own, perhaps a canary of it, and others that are loaded when first asked for.

Rollouts are explained in docs/decisions/0022-rollouts.md.
"""

import asyncio
import logging
import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tinyclip_workers.serving.options import CanaryAt, ServingOptions, Wanted
from tinyclip_workers.serving.queries.problems import Refusal, field_error, invalid, refuse
from tinyclip_workers.serving.replica.served_model import ServedModel

log = logging.getLogger(__name__)

Load = Callable[[ServingOptions], ServedModel]

FAILURE_KEPT_S = 30.0
"""So long a further model that could not be loaded is not tried again: each try takes seconds, and the place of a good one."""


@dataclass
class _Canary:
    at: CanaryAt
    model: ServedModel | None
    """null: it could not be loaded."""
    error: str = ""


@dataclass
class _Failure:
    error: Exception
    until: float
    """By `HostedModels`' clock: when to try again."""


class HostedModels:
    """For one event loop, not for threads."""

    def __init__(
        self, options: ServingOptions, load: Load, draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Loads the deployment's own model; `draw` gives numbers from 0 to 1, `clock` seconds. Raises what `load` raises."""
        self._options, self._load, self._draw, self._clock = options, load, draw, clock
        self.own = load(options)
        self._wanted = Wanted()
        self._canary: _Canary | None = None
        self._others: OrderedDict[str, ServedModel] = OrderedDict()
        self._loading: dict[str, asyncio.Task[ServedModel]] = {}
        self._failures: dict[str, _Failure] = {}
        self._turn = asyncio.Lock()

    async def follow(self, wanted: Wanted) -> None:
        """Take over what is wanted now. A canary that cannot be loaded is told of by `canary_state`, and gets no queries."""
        async with self._turn:
            self._wanted = wanted
            self._failures.clear()  # whoever changes a deployment may have mended what was wrong
            known = self._canary
            if wanted.canary is None:
                self._canary = None
            elif known is not None and known.at.model_uri == wanted.canary.model_uri:
                known.at = wanted.canary
            else:
                self._canary = await self._loaded_canary(wanted.canary)
            for gone in self._others.keys() - wanted.models.keys():
                del self._others[gone]
            self._make_room(wanted.resident)

    def canary_state(self) -> dict[str, object] | None:
        """As `healthz` shows it."""
        canary = self._canary
        if canary is None:
            return None
        return {"model": canary.at.model, "weight": canary.at.weight, "error": canary.error or None}

    def names(self) -> list[str]:
        """Of all that may be asked for."""
        canary = [self._canary.at.model] if self._canary and self._canary.model else []
        return [self.own.name, *canary, *self._wanted.models]

    async def one_for(self, asked: str | None) -> ServedModel:
        """Who answers a query: the model that it names; for one that names no version now and then the canary.

        Raises Refusal for a model that is not here.
        """
        canary = self._canary
        if self._is_own_name(asked) and canary is not None and canary.model is not None and self._draw() < canary.at.weight:
            return canary.model
        return await self.named(asked)

    async def named(self, asked: str | None) -> ServedModel:
        """The model that a query names, and the deployment's own where it names no version. Raises Refusal."""
        if self._is_own_name(asked) or asked == self.own.name:
            return self.own
        if self._canary is not None and self._canary.model is not None and asked == self._canary.at.model:
            return self._canary.model
        return await self._other(self._exactly(asked or ""))

    async def whose(self, embeddings_of: str) -> ServedModel:
        """The model of an index's embeddings, or the deployment's own if that is not here."""
        return await self.named(embeddings_of) if embeddings_of in self.names() else self.own

    def _is_own_name(self, asked: str | None) -> bool:
        return asked in (None, self._options.name, self._options.model.partition("@")[0])

    def _exactly(self, asked: str) -> str:
        """The further model of this name, or the only one of this name without a version. Raises Refusal."""
        if asked in self._wanted.models:
            return asked
        versions = [model for model in self._wanted.models if model.partition("@")[0] == asked]
        if len(versions) != 1:
            raise self._not_here(asked)
        return versions[0]

    def _not_here(self, asked: str) -> Refusal:
        some = ", ".join(self.names()[:10])
        return invalid(field_error("/model", asked, f"is not served here; omit model or name one of {some}"))

    async def _other(self, name: str) -> ServedModel:
        if name in self._others:
            self._others.move_to_end(name)
            return self._others[name]
        self._expect_no_failure(name)
        loading = self._loading.get(name)
        if loading is None:
            loading = self._loading[name] = asyncio.create_task(self._loaded(name))
            loading.add_done_callback(partial(self._loading_done, name))
        return await asyncio.shield(loading)  # whoever began it may give up before it is done

    def _loading_done(self, name: str, loading: asyncio.Task[ServedModel]) -> None:
        del self._loading[name]
        if not loading.cancelled():
            loading.exception()  # seen, though all who waited may have given up

    async def _loaded(self, name: str) -> ServedModel:
        async with self._turn:  # one after the other: a crowd of new names must not fill the memory
            uri = self._wanted.models.get(name)
            if uri is None:
                raise self._not_here(name)  # no longer
            self._make_room(self._wanted.resident - 1)
            options = self._options.model_copy(update={"model": name, "model_uri": uri})
            try:
                self._others[name] = await asyncio.to_thread(self._load, options)
            except Exception as error:  # whatever it is: the other models go on
                log.exception("model %s cannot be loaded", name)
                self._failures[name] = _Failure(error, self._clock() + FAILURE_KEPT_S)
                self._expect_no_failure(name)
            return self._others[name]

    def _expect_no_failure(self, name: str) -> None:
        """Raises Refusal (503) while a failure to load the model is kept."""
        if (failure := self._failures.get(name)) is None:
            return
        left = math.ceil(failure.until - self._clock())
        if left > 0:
            raise _unavailable(name, failure.error, left) from failure.error
        del self._failures[name]

    async def _loaded_canary(self, at: CanaryAt) -> _Canary:
        options = self._options.model_copy(update={"model": at.model, "model_uri": at.model_uri})
        try:
            return _Canary(at, await asyncio.to_thread(self._load, options))
        except Exception as error:  # whatever it is: the version that it is tried against goes on
            log.exception("canary %s cannot be loaded", at.model)
            return _Canary(at, None, str(error) or type(error).__name__)

    def _make_room(self, most: int) -> None:
        while len(self._others) > most:
            self._others.popitem(last=False)


def _unavailable(name: str, error: Exception, seconds: int) -> Refusal:
    why = str(error) or type(error).__name__
    detail = f"/model: {name} cannot be loaded: {why}; it is tried again when asked for after {seconds} s"
    title, headers = "The model cannot be loaded", {"Retry-After": str(seconds)}
    return refuse(503, "model_unavailable", title, detail, retryable=True, headers=headers)
