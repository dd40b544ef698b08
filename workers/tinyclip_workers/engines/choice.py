"""Which engine serves: `auto` builds every candidate, times it on this machine, and compares it with torch in fp32.

The fastest is taken whose embeddings are near enough. One that rounds has to be clearly faster than the fastest exact one.
"""

import logging
import time
from collections.abc import Sequence

import numpy as np
from tinyclip.schemas.deployments import EngineName

from tinyclip_workers.engines.builder import EXACT, ON_CPU, ON_CUDA, Workshop
from tinyclip_workers.engines.calibration import CALIBRATION_FILE, divided
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.engines.report import EngineTrial
from tinyclip_workers.types import Pixels

log = logging.getLogger(__name__)

BATCH = 8
SECONDS = 0.3
"""Of timing, an engine."""
LEAST_TURNS = 2
HOPELESS = 3
"""Times as slow as the fastest so far: not timed again."""
CLEARLY = 1.1
"""Times as fast as the fastest exact engine."""
_ROUNDING = 1e-6
"""Of a cosine in fp32."""


def named(workshop: Workshop, name: EngineName) -> Engine:
    """The engine that was asked for; one that rounds is compared with torch, for the report. Raises as `Workshop.build`."""
    report = workshop.report(name, name, "asked for by name")
    engine = workshop.build(name, report)
    if name not in EXACT and workshop.pictures is not None:
        compared = divided(workshop.pictures)[1]
        reference = workshop.build("torch", workshop.report("torch", name))
        report.pictures = len(compared)
        report.trials = [EngineTrial(engine=name, cosine=_cosine(engine, reference, compared))]
    return engine


def choose(workshop: Workshop, min_cosine: float) -> Engine:
    """The fastest engine whose mean cosine to torch in fp32 is at least `min_cosine`; its report says what was measured."""
    pictures = _compared_pictures(workshop)
    engines, trials = _candidates(workshop)
    seconds = _time(list(engines.values()), np.resize(pictures, (BATCH, *pictures.shape[1:])))
    for name, engine in engines.items():
        trial = trials[name]
        trial.images_per_second = round(BATCH / seconds[name], 1)
        trial.cosine = _cosine(engine, engines["torch"], pictures)
        if trial.cosine < min_cosine - _ROUNDING:
            trial.refused = f"its mean cosine to torch is {trial.cosine:.5g}, below {min_cosine}"
    name, reason = _fastest(list(trials.values()))
    report = engines[name].report
    report.reason, report.trials, report.min_cosine = reason, list(trials.values()), min_cosine
    report.pictures = 0 if workshop.pictures is None else len(pictures)
    log.info("engine %s: %s", name, reason)
    return engines[name]


def _candidates(workshop: Workshop) -> tuple[dict[str, Engine], dict[str, EngineTrial]]:
    """Every engine that can be built here; torch always can. A trial for each, with the reason where it cannot."""
    engines: dict[str, Engine] = {}
    trials: dict[str, EngineTrial] = {}
    for name in ON_CUDA if workshop.device.type == "cuda" else ON_CPU:
        trials[name] = EngineTrial(engine=name)
        if workshop.pictures is None and name not in EXACT:
            trials[name].refused = f"the version has no {CALIBRATION_FILE} to compare it on, so only exact engines are considered"
            continue
        try:
            engines[name] = workshop.build(name, workshop.report(name, "auto"))
        except ImportError as missing:
            trials[name].refused = str(missing)
        except Exception as error:  # a library of machine code, on a machine that nobody has tried: the others still serve
            if name == "torch":
                raise
            log.exception("engine %s cannot be built", name)
            trials[name].refused = f"cannot be built: {type(error).__name__}: {error}"
    return engines, trials


def _fastest(trials: Sequence[EngineTrial]) -> tuple[str, str]:
    """Name and reason. torch is always among the exact ones that may be chosen."""
    rates = {t.engine: t.images_per_second for t in trials if not t.refused and t.images_per_second is not None}
    exact = max((name for name in rates if name in EXACT), key=rates.__getitem__)
    fastest = max(rates, key=rates.__getitem__)
    name = fastest if rates[fastest] > CLEARLY * rates[exact] else exact
    [trial] = [trial for trial in trials if trial.engine == name]
    reason = f"{rates[name]:g} images/s at batch {BATCH}, {rates[name] / rates['torch']:.1f} times torch's in fp32"
    if name != "torch" and trial.cosine is not None:
        reason += f", at a mean cosine of {trial.cosine:.5g} to it"
    if name != fastest:
        reason += f"; {fastest} rounds, and is not {CLEARLY} times as fast"
    absent = {t.refused for t in trials if "pip install" in t.refused}
    return name, "; ".join([reason, *sorted(absent)])


def _time(engines: Sequence[Engine], pictures: Pixels) -> dict[str, float]:
    """Seconds a batch: the least of several, taken in turns, so that a busy moment of the machine hits all alike."""
    best = {engine.name: float("inf") for engine in engines}
    for engine in engines:
        engine.encode_image(pictures)  # what is made at the first call is not timed
    until = time.perf_counter() + SECONDS * len(best)
    turns = 0
    while turns < LEAST_TURNS or time.perf_counter() < until:
        hopeless = HOPELESS * min(best.values())
        for engine in engines:
            if best[engine.name] > hopeless:
                continue
            began = time.perf_counter()
            engine.encode_image(pictures)
            best[engine.name] = min(best[engine.name], time.perf_counter() - began)
        turns += 1
    return best


def _compared_pictures(workshop: Workshop) -> Pixels:
    """Those that nothing was calibrated on; noise where there are none, on which exact engines agree as well."""
    if workshop.pictures is not None:
        return divided(workshop.pictures)[1]
    size = workshop.loaded.layout.image.image_size
    return np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), dtype=np.uint8)


def _cosine(engine: Engine, reference: Engine, pictures: Pixels) -> float:
    """Mean over the pictures, a batch at a time."""
    parts = [pictures[i : i + BATCH] for i in range(0, len(pictures), BATCH)]
    cosines = [(engine.encode_image(part) * reference.encode_image(part)).sum(axis=1) for part in parts]
    return float(min(1.0, np.concatenate(cosines).mean()))
