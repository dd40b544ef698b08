"""The models of one replica: the deployment's own, perhaps a canary, and further ones that are loaded on demand.

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

from tinyclip_workers.serving.options import CanaryConfig, ServingOptions, UserConfig
from tinyclip_workers.serving.problems import ProblemError, field_error, invalid_input, problem_error
from tinyclip_workers.serving.replica.served_model import ServedModel

log = logging.getLogger(__name__)

Load = Callable[[ServingOptions], ServedModel]

LOAD_BACKOFF_S = 30.0
"""After a failed load a further model is not loaded again for so long: a load takes seconds, and may evict another model."""


@dataclass
class _Canary:
    config: CanaryConfig
    model: ServedModel | None
    """None: it could not be loaded."""
    error: str = ""


@dataclass
class _LoadFailure:
    error: Exception
    retry_at: float
    """By the clock of `HostedModels`."""


class HostedModels:
    """The loaded models by name, and the configuration that selects among them. For one event loop, not for threads."""

    def __init__(
        self, options: ServingOptions, load: Load, random_share: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load the deployment's own model; `random_share` gives numbers from 0 to 1. Raises what `load` raises."""
        self._options, self._load, self._random_share, self._clock = options, load, random_share, clock
        self.own = load(options)
        self._config = UserConfig()
        self._canary: _Canary | None = None
        self._further: OrderedDict[str, ServedModel] = OrderedDict()
        self._loading: dict[str, asyncio.Task[ServedModel]] = {}
        self._failures: dict[str, _LoadFailure] = {}
        self._load_lock = asyncio.Lock()

    async def reconfigure(self, config: UserConfig) -> None:
        """Apply a new configuration. A canary that cannot be loaded is reported by `canary_state` and gets no queries."""
        async with self._load_lock:
            self._config = config
            self._failures.clear()  # the new configuration may have removed the cause
            known = self._canary
            if config.canary is None:
                self._canary = None
            elif known is not None and known.config.model_uri == config.canary.model_uri:
                known.config = config.canary
            else:
                self._canary = await self._load_canary(config.canary)
            for removed in self._further.keys() - config.models.keys():
                del self._further[removed]
            self._evict_to(config.resident)

    def canary_state(self) -> dict[str, object] | None:
        """Return the canary as `healthz` shows it."""
        canary = self._canary
        if canary is None:
            return None
        return {"model": canary.config.model, "weight": canary.config.weight, "error": canary.error or None}

    def names(self) -> list[str]:
        """Return the names of all models that a query may name."""
        canary = [self._canary.config.model] if self._canary and self._canary.model else []
        return [self.own.name, *canary, *self._config.models]

    async def route(self, name: str | None) -> ServedModel:
        """Return the model that a query names; a query without a version may get the canary, as often as its weight says.

        Raises ProblemError for a model that is not served here.
        """
        canary = self._canary
        if (
            self._names_no_version(name)
            and canary is not None
            and canary.model is not None
            and self._random_share() < canary.config.weight
        ):
            return canary.model
        return await self.get(name)

    async def get(self, name: str | None) -> ServedModel:
        """Return the model that a query names, or the deployment's own if it names no version. Raises ProblemError."""
        if self._names_no_version(name) or name == self.own.name:
            return self.own
        if self._canary is not None and self._canary.model is not None and name == self._canary.config.model:
            return self._canary.model
        return await self._get_further(self._full_name(name or ""))

    async def for_embeddings_of(self, name: str) -> ServedModel:
        """Return the model of an index's embeddings, or the deployment's own if that model is not served here."""
        return await self.get(name) if name in self.names() else self.own

    def _names_no_version(self, name: str | None) -> bool:
        return name in (None, self._options.name, self._options.model.partition("@")[0])

    def _full_name(self, name: str) -> str:
        """Return the name of a further model; its version may be omitted if there is only one. Raises ProblemError."""
        if name in self._config.models:
            return name
        versions = [model for model in self._config.models if model.partition("@")[0] == name]
        if len(versions) != 1:
            raise self._not_served(name)
        return versions[0]

    def _not_served(self, name: str) -> ProblemError:
        some = ", ".join(self.names()[:10])
        return invalid_input(field_error("/model", name, f"is not served here; omit model or name one of {some}"))

    async def _get_further(self, name: str) -> ServedModel:
        if name in self._further:
            self._further.move_to_end(name)
            return self._further[name]
        self._check_load_failure(name)
        loading = self._loading.get(name)
        if loading is None:
            loading = self._loading[name] = asyncio.create_task(self._load_further(name))
            loading.add_done_callback(partial(self._on_loaded, name))
        return await asyncio.shield(loading)  # the request that started it may be cancelled before it is done

    def _on_loaded(self, name: str, loading: asyncio.Task[ServedModel]) -> None:
        del self._loading[name]
        if not loading.cancelled():
            loading.exception()  # retrieved, so that asyncio does not log it when no request is left

    async def _load_further(self, name: str) -> ServedModel:
        async with self._load_lock:  # one at a time: many new names at once must not fill the memory
            uri = self._config.models.get(name)
            if uri is None:  # removed while this waited
                raise self._not_served(name)
            self._evict_to(self._config.resident - 1)
            options = self._options.model_copy(update={"model": name, "model_uri": uri})
            try:
                self._further[name] = await asyncio.to_thread(self._load, options)
            except Exception as error:  # of any kind: the other models must keep serving
                log.exception("model %s cannot be loaded", name)
                self._failures[name] = _LoadFailure(error, self._clock() + LOAD_BACKOFF_S)
                self._check_load_failure(name)
            return self._further[name]

    def _check_load_failure(self, name: str) -> None:
        """Raises ProblemError (503) while the model is not to be loaded again."""
        if (failure := self._failures.get(name)) is None:
            return
        left = math.ceil(failure.retry_at - self._clock())
        if left > 0:
            raise _unavailable(name, failure.error, left) from failure.error
        del self._failures[name]

    async def _load_canary(self, config: CanaryConfig) -> _Canary:
        options = self._options.model_copy(update={"model": config.model, "model_uri": config.model_uri})
        try:
            return _Canary(config, await asyncio.to_thread(self._load, options))
        except Exception as error:  # of any kind: the deployment's own model must keep serving
            log.exception("canary %s cannot be loaded", config.model)
            return _Canary(config, None, str(error) or type(error).__name__)

    def _evict_to(self, limit: int) -> None:
        """Drop the least recently used further models."""
        while len(self._further) > limit:
            self._further.popitem(last=False)


def _unavailable(name: str, error: Exception, seconds: int) -> ProblemError:
    reason = str(error) or type(error).__name__
    detail = f"/model: {name} cannot be loaded: {reason}; it is loaded again for a query after {seconds} s"
    title, headers = "The model cannot be loaded", {"Retry-After": str(seconds)}
    return problem_error(503, "model_unavailable", title, detail, retryable=True, headers=headers)
