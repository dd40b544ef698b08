"""The engines and latencies that a request asks for."""

from collections.abc import Sequence

import torch
from tinyclip.artifacts.searches import FinalistsRequest
from tinyclip.schemas.deployments import EngineName
from tinyclip.schemas.searches import Hardware

from tinyclip_workers.costs.measuring import device_of
from tinyclip_workers.costs.model import Key
from tinyclip_workers.engines.builder import ON_CPU, ON_CUDA

SINGLE = (Hardware(tower="image"), Hardware(tower="text"))
"""The latencies of a search that limits none."""


def device_for(request: FinalistsRequest) -> torch.device:
    """Return the device of all latencies. Raises ValueError if there are several, or if it has no such engine."""
    devices = {device_of(hardware.device) for hardware in request.hardware or SINGLE}
    if len(devices) > 1:
        raise ValueError("latencies are of one device, either cpu or cuda")
    device = devices.pop()
    for hardware in request.hardware:
        if hardware.engine not in _all_engines(device):
            raise ValueError(f"there is no engine {hardware.engine} on {device.type}")
    return device


def engines_for(hardware: Sequence[Hardware], device: torch.device) -> list[EngineName]:
    """Return the engines to measure: torch's and those of the families that are named; without any, all of the device."""
    families = {"torch", *(_family(one.engine) for one in hardware)}
    return [name for name in _all_engines(device) if not hardware or _family(name) in families]


def keys_for(hardware: Sequence[Hardware], engine: EngineName) -> list[Key]:
    """Return the latencies that are asked for, in this engine."""
    keys = [Key.of(one.model_copy(update={"engine": engine})) for one in hardware or SINGLE]
    return list(dict.fromkeys(keys))


def _all_engines(device: torch.device) -> tuple[EngineName, ...]:
    return ON_CUDA if device.type == "cuda" else ON_CPU


def _family(engine: str) -> str:
    return engine.partition("-")[0]
