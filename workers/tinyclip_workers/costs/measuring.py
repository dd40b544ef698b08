"""The latency of one call of a tower of an engine; of a layout with random weights: the time does not depend on their values.

Other programs may use the machine meanwhile, which only ever makes a call slower: the fastest of many calls counts, and layouts
take turns, so that no one has all of its calls in a bad minute. With one thread on a CPU the process's own time counts, not that
in which it waits for a core.
"""

import contextlib
import hashlib
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from tinyclip.schemas.deployments import EngineName
from tinyclip.schemas.layouts import AnyLayout, Layout

from tinyclip_workers.costs.model import Key
from tinyclip_workers.engines.builder import ON_CPU, ON_CUDA, EngineBuilder
from tinyclip_workers.engines.calibration import MIN_CALIBRATION_IMAGES
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.model.architecture import build_clip
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.model.tokenizers import make_tokenizer
from tinyclip_workers.model.towers import Model

ROUNDS = 6
"""Turns of each layout."""
SECONDS = 0.06
"""Of calls in a turn."""
MIN_CALLS = 2
"""In a turn, however long they take."""
SLOW_TO_BUILD = ("openvino", "openvino-bf16", "openvino-int8")
"""Engines whose conversions take seconds for each layout."""
WEIGHT = 0.03
"""Standard deviation of random weights."""
_CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def measure_layouts(
    layouts: Sequence[Layout], keys: Sequence[Sequence[Key]], cache: Path, device: torch.device, *, rounds: int = ROUNDS,
    seconds: float = SECONDS,
) -> list[dict[str, float]]:  # fmt: skip
    """Return milliseconds by key of each layout, for the keys beside it. All are in memory together and take turns.

    `cache`: folder for converted models. Raises MissingExtra for an engine whose library is not installed, ValueError for one
    that the device does not have.
    """
    calls: list[dict[str, _Call]] = [
        _prepare(layout, of_layout, cache, device) for layout, of_layout in zip(layouts, keys, strict=True)
    ]
    for _ in range(rounds):
        for of_layout in calls:
            for call in of_layout.values():
                call.take_turn(seconds)
    return [{key: 1000 * call.fastest_s for key, call in of_layout.items()} for of_layout in calls]


@dataclass(frozen=True)
class BuiltEngine:
    """An engine that was built for `key` from a model of this layout."""

    engine: Engine
    layout: AnyLayout
    key: Key


def measure_engines(
    engines: Sequence[BuiltEngine], device: torch.device, *, rounds: int = ROUNDS, seconds: float = SECONDS
) -> list[float]:
    """Return milliseconds of one call of each engine. They take turns."""
    calls = [_Call(_encoding(each.engine, each.layout, each.key), each.key.threads, _clock(each.key, device)) for each in engines]
    for _ in range(rounds):
        for call in calls:
            call.take_turn(seconds)
    return [1000 * call.fastest_s for call in calls]


def device_of(name: str) -> torch.device:
    """Return the device of a constraint: `auto` is CUDA where there is one."""
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def describe_hardware(device: torch.device) -> str:
    """Return the name of a GPU, or of the processor with those of its instructions that make networks faster."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    found = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    flags = found.get("flags", "").split()
    name = found.get("model name") or platform.processor() or platform.machine()
    return ", ".join([name, *(flag for flag in _CPU_FLAGS if flag in flags)])


@dataclass
class _Call:
    encode: Callable[[], object]
    threads: int
    clock: Callable[[], float]
    fastest_s: float = math.inf

    def take_turn(self, seconds: float) -> None:
        with _torch_threads(self.threads):
            self.encode()  # the first call of a turn finds cold caches; the very first one also compiles
            until, calls = time.perf_counter() + seconds, 0
            while calls < MIN_CALLS or time.perf_counter() < until:
                started = self.clock()
                self.encode()
                self.fastest_s = min(self.fastest_s, self.clock() - started)
                calls += 1


def _prepare(layout: Layout, keys: Sequence[Key], cache: Path, device: torch.device) -> dict[str, _Call]:
    engines: dict[tuple[str, int], Engine] = {}
    calls = {}
    for key in keys:
        if key.engine not in (ON_CUDA if device.type == "cuda" else ON_CPU):
            raise ValueError(f"there is no engine {key.engine} on {device.type}")
        name = (key.engine, key.threads)
        if name not in engines:
            engines[name] = _build(layout, key, cache, device)
        calls[str(key)] = _Call(_encoding(engines[name], layout, key), key.threads, _clock(key, device))
    return calls


def _build(layout: Layout, key: Key, cache: Path, device: torch.device) -> Engine:
    name = cast(EngineName, key.engine)
    noise = _noise(MIN_CALIBRATION_IMAGES, layout.image_size)
    builder = EngineBuilder(random_model(layout), noise, threads=key.threads, cache=cache, device=device)
    return builder.build(name, builder.report(name, name))


def random_model(layout: Layout) -> LoadedModel:
    """Return a model with random weights, as `EngineBuilder` needs it."""
    text = layout.model_dump_json()
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = _randomized(build_clip(layout)).eval()
    torch.random.set_rng_state(torch_state)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return LoadedModel(model, layout, make_tokenizer(layout), OPENAI_MEAN, OPENAI_STD, "random", digest)


def _randomized(model: Model) -> Model:
    """Fill all weights: those of our towers are not initialised. Scalars, and variances of batch norm, stay as they are."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.dim() > 0 and not name.endswith("running_var"):
            tensor.normal_(0, WEIGHT)
    return model


def _encoding(engine: Engine, layout: AnyLayout, key: Key) -> Callable[[], object]:
    """Return the timed call; texts fill the context."""
    if key.tower == "image":
        images = _noise(key.batch, engine.image_size)
        return lambda: engine.encode_image(images)
    texts = ["a " * layout.context_length] * key.batch
    return lambda: engine.encode_text(texts)


def _noise(count: int, size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def _clock(key: Key, device: torch.device) -> Callable[[], float]:
    """Return the clock of a key. Results are copied to the CPU, so a call ends after all work of a GPU."""
    return time.process_time if device.type == "cpu" and key.threads == 1 else time.perf_counter


@contextlib.contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if before != threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if before != threads:
            torch.set_num_threads(before)
