"""Choose the engine that serves: `auto` builds every candidate, times it on this machine, and compares it with torch in fp32.

The fastest engine with close enough embeddings is chosen. One that rounds must be clearly faster than the fastest exact one.
"""

import logging
import time
from collections.abc import Sequence

import numpy as np
from tinyclip.schemas.deployments import EngineName

from tinyclip_workers.engines.builder import EXACT, ON_CPU, ON_CUDA, EngineBuilder
from tinyclip_workers.engines.calibration import CALIBRATION_FILE, split_calibration
from tinyclip_workers.engines.protocol import Engine, EngineTrial
from tinyclip_workers.types import Pixels

log = logging.getLogger(__name__)

BATCH = 8
SECONDS_PER_ENGINE = 0.3
MIN_ROUNDS = 2
SLOW_FACTOR = 3
"""An engine slower than the fastest so far by this factor is not timed again."""
MIN_SPEEDUP = 1.1
"""An engine that rounds must be faster than the fastest exact one by this factor."""
_ROUNDING = 1e-6
"""Rounding error of a cosine in fp32."""


def build_named(builder: EngineBuilder, name: EngineName) -> Engine:
    """Build an engine by name; one that rounds is compared with torch, for the report. Raises as `EngineBuilder.build`."""
    report = builder.report(name, name, "asked for by name")
    engine = builder.build(name, report)
    if name not in EXACT and builder.calibration_images is not None:
        images = split_calibration(builder.calibration_images)[1]
        reference = builder.build("torch", builder.report("torch", name))
        report.pictures = len(images)
        report.trials = [EngineTrial(engine=name, cosine=_mean_cosine(engine, reference, images))]
    return engine


def choose_fastest(builder: EngineBuilder, min_cosine: float) -> Engine:
    """Return the fastest engine whose mean cosine to torch in fp32 is at least `min_cosine`; its report has all measurements."""
    images = _comparison_images(builder)
    engines, trials = _build_candidates(builder)
    seconds = _seconds_per_batch(list(engines.values()), np.resize(images, (BATCH, *images.shape[1:])))
    for name, engine in engines.items():
        trial = trials[name]
        trial.images_per_second = round(BATCH / seconds[name], 1)
        trial.cosine = _mean_cosine(engine, engines["torch"], images)
        if trial.cosine < min_cosine - _ROUNDING:
            trial.refused = f"its mean cosine to torch is {trial.cosine:.5g}, below {min_cosine}"
    name, reason = _fastest(list(trials.values()))
    report = engines[name].report
    report.reason, report.trials, report.min_cosine = reason, list(trials.values()), min_cosine
    report.pictures = 0 if builder.calibration_images is None else len(images)
    log.info("engine %s: %s", name, reason)
    return engines[name]


def _build_candidates(builder: EngineBuilder) -> tuple[dict[str, Engine], dict[str, EngineTrial]]:
    """Build every engine that this machine supports, torch always. Return a trial for each, with the reason if it is refused."""
    engines: dict[str, Engine] = {}
    trials: dict[str, EngineTrial] = {}
    for name in ON_CUDA if builder.device.type == "cuda" else ON_CPU:
        trials[name] = EngineTrial(engine=name)
        if builder.calibration_images is None and name not in EXACT:
            trials[name].refused = f"the version has no {CALIBRATION_FILE} to compare it on, so only exact engines are considered"
            continue
        try:
            engines[name] = builder.build(name, builder.report(name, "auto"))
        except ImportError as missing:
            trials[name].refused = str(missing)
        except Exception as error:  # native code may fail on hardware that it was never tested on: the others still serve
            if name == "torch":
                raise
            log.exception("engine %s cannot be built", name)
            trials[name].refused = f"cannot be built: {type(error).__name__}: {error}"
    return engines, trials


def _fastest(trials: Sequence[EngineTrial]) -> tuple[str, str]:
    """Return the chosen engine's name and the reason. torch is always among the exact candidates."""
    rates = {t.engine: t.images_per_second for t in trials if not t.refused and t.images_per_second is not None}
    exact = max((name for name in rates if name in EXACT), key=rates.__getitem__)
    fastest = max(rates, key=rates.__getitem__)
    name = fastest if rates[fastest] > MIN_SPEEDUP * rates[exact] else exact
    [trial] = [trial for trial in trials if trial.engine == name]
    reason = f"{rates[name]:g} images/s at batch {BATCH}, {rates[name] / rates['torch']:.1f} times torch's in fp32"
    if name != "torch" and trial.cosine is not None:
        reason += f", at a mean cosine of {trial.cosine:.5g} to it"
    if name != fastest:
        reason += f"; {fastest} rounds, and is not {MIN_SPEEDUP} times as fast"
    missing_extras = {t.refused for t in trials if "pip install" in t.refused}
    return name, "; ".join([reason, *sorted(missing_extras)])


def _seconds_per_batch(engines: Sequence[Engine], images: Pixels) -> dict[str, float]:
    """Time every engine in turns, so that other load on the machine affects all alike; the fastest call of each counts."""
    best = {engine.name: float("inf") for engine in engines}
    for engine in engines:
        engine.encode_image(images)  # the first call allocates and compiles: not timed
    until = time.perf_counter() + SECONDS_PER_ENGINE * len(best)
    rounds = 0
    while rounds < MIN_ROUNDS or time.perf_counter() < until:
        too_slow = SLOW_FACTOR * min(best.values())
        for engine in engines:
            if best[engine.name] > too_slow:
                continue
            started = time.perf_counter()
            engine.encode_image(images)
            best[engine.name] = min(best[engine.name], time.perf_counter() - started)
        rounds += 1
    return best


def _comparison_images(builder: EngineBuilder) -> Pixels:
    """Return images that no engine was calibrated on; without any, noise, which suffices to compare exact engines."""
    if builder.calibration_images is not None:
        return split_calibration(builder.calibration_images)[1]
    size = builder.loaded.layout.image_size
    return np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), dtype=np.uint8)


def _mean_cosine(engine: Engine, reference: Engine, images: Pixels) -> float:
    parts = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
    cosines = [(engine.encode_image(part) * reference.encode_image(part)).sum(axis=1) for part in parts]
    return float(min(1.0, np.concatenate(cosines).mean()))
