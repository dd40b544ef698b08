"""Measurements of versions in one engine: latencies, which all versions take turns for, bytes, and quality."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tinyclip.artifacts.searches import Quality, latency_key
from tinyclip.schemas.deployments import EngineName
from tinyclip.schemas.searches import Measurement
from tinyclip.schemas.spec import EvaluationTask

from tinyclip_workers.costs.measuring import BuiltEngine, measure_engines
from tinyclip_workers.costs.model import Key
from tinyclip_workers.engines.builder import ON_CUDA, EngineBuilder
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.evaluation.embedding import ModelInEngine
from tinyclip_workers.evaluation.tasks import OnSample, evaluate_tasks
from tinyclip_workers.finalists.versions import FinalistVersion
from tinyclip_workers.model.files.folders import LoadedModel

MEMORY_BYTES = 4 << 30
"""Limit of the models whose latencies are measured together, if they are several."""
MAX_REASON = 300
"""Characters of the reason why a version was left out."""
_NO_METRICS = ("ms_per_image", "probe_c")


@dataclass(frozen=True)
class EngineOnDevice:
    """An engine to measure versions in, and the latencies that are asked for; `cache` is the folder of converted models."""

    name: EngineName
    keys: Sequence[Key]
    device: torch.device
    cache: Path

    def builder(self, version: FinalistVersion, loaded: LoadedModel) -> EngineBuilder:
        return EngineBuilder(loaded, version.calibration_images, torch.get_num_threads(), self.cache, self.device)

    def build(self, builder: EngineBuilder) -> Engine:
        """Raises any exception: native code may fail on a layout or on hardware that it was never tested on."""
        return builder.build(self.name, builder.report(self.name, self.name))


def groups_in_memory(versions: Sequence[FinalistVersion]) -> list[list[FinalistVersion]]:
    """Divide versions into as few groups as fit into memory: each twice, as torch and as the engine have it."""
    size = max(1, MEMORY_BYTES // (2 * max((version.bytes for version in versions), default=1)))
    return [list(versions[start : start + size]) for start in range(0, len(versions), size)]


def measure_costs(versions: Sequence[FinalistVersion], engine: EngineOnDevice) -> dict[int, Measurement | str]:
    """Return latencies and bytes of each version by trial, or the reason why the engine cannot compute it. Raises TeacherError.

    All versions are in memory together and take turns, so that no one has all of its calls in a bad minute of the machine.
    """
    found: dict[int, Measurement | str] = {}
    built: list[tuple[int, BuiltEngine]] = []
    for version in versions:
        loaded = version.load()
        try:
            engines, size = _build(version, loaded, engine)
        except Exception as error:  # as in `EngineOnDevice.build`
            found[version.trial] = reason_of(error)
        else:
            found[version.trial] = Measurement(engine=engine.name, latency_ms={}, bytes=size)
            built += [(version.trial, each) for each in engines]
    built.sort(key=lambda pair: engine.keys.index(pair[1].key))  # versions that are compared follow each other
    latencies = measure_engines([each for _, each in built], engine.device)
    for (trial, each), ms in zip(built, latencies, strict=True):
        measurement = found[trial]
        assert isinstance(measurement, Measurement), "it was built"
        measurement.latency_ms[latency_key(each.key.tower, each.key.batch, each.key.threads)] = ms
    return found


def measure_quality(
    version: FinalistVersion, engine: EngineOnDevice, tasks: Sequence[EvaluationTask], on_sample: OnSample
) -> Quality:
    """Return the metrics of each task with the engine's embeddings. Raises as `EngineOnDevice.build` and `evaluate_tasks`."""
    if not tasks:
        return {}
    loaded = version.load()
    model = ModelInEngine.of(loaded, engine.build(engine.builder(version, loaded)))
    scores = evaluate_tasks({engine.name: model}, tasks, holdout=version.holdout, device=engine.device, on_sample=on_sample)
    return {task: _metrics(by_model[engine.name]) for task, by_model in scores.items()}


def reason_of(error: Exception) -> str:
    """Return why an engine cannot compute a version."""
    expected = isinstance(error, ImportError | ValueError)
    return (str(error) if expected else f"{type(error).__name__}: {error}")[:MAX_REASON]


def _build(version: FinalistVersion, loaded: LoadedModel, engine: EngineOnDevice) -> tuple[list[BuiltEngine], int]:
    """Build an engine for each number of threads, and call it: one that cannot compute the model fails here, alone."""
    builder = engine.builder(version, loaded)
    engines = {threads: engine.build(replace(builder, threads=threads)) for threads in {key.threads for key in engine.keys}}
    built = [BuiltEngine(engines[key.threads], loaded.layout, key) for key in engine.keys]
    measure_engines(built, engine.device, rounds=1, seconds=0.0)
    return built, version.bytes if engine.name in ON_CUDA else builder.converted_bytes(engine.name)


def _metrics(scores: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if isinstance(value, float) and name not in _NO_METRICS}
