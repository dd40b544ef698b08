"""The work of the Ray job `tc-costs-<search>-a<attempt>`: fit the cost models that a search needs, on the hardware that serves.

Layouts are measured in groups and kept in the artifacts store as they come, so that a later attempt continues after them.
The result is committed as one file, `costs.json`. An attempt that finds it only emits the final event again.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from tinyclip.artifacts.paths import search_costs, search_costs_measured, search_costs_request
from tinyclip.artifacts.searches import CostModel, CostsRequest, MeasuredLayout
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.errors import MissingExtra
from tinyclip.schemas.layouts import AnyLayout, Layout

from tinyclip_workers.costs.measuring import SLOW_TO_BUILD, describe_hardware, device_of, measure_layouts
from tinyclip_workers.costs.model import MIN_LAYOUTS, Key, fit
from tinyclip_workers.costs.sampling import sample_layouts
from tinyclip_workers.costs.sizes import sizes_of
from tinyclip_workers.costs.terms import Tower
from tinyclip_workers.model.files.errors import TeacherError
from tinyclip_workers.model.files.sources import find_teacher
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.runtime.ray_job import JobFailed, RequestWithdrawn

LAYOUTS, SLOW_LAYOUTS = 48, 24
"""Layouts of an engine; of one that converts models, which takes seconds for each."""
GROUP, GROUP_BYTES = 24, 4 << 30
"""Limits of the layouts that are in memory together. Those of a group are measured in the same minutes: the larger it is, the
less do changes of the load on the machine distort the differences between layouts."""


@dataclass(frozen=True)
class _Work:
    """The layouts to measure, the teacher's own first, and the keys of each."""

    layouts: list[Layout]
    keys: list[list[Key]]
    device: torch.device
    has_teacher: bool
    fits_teacher: bool
    """False if the teacher is not of the family of the others."""


def fit_costs(store: ArtifactsStore, id: str, attempt: int, events: EventWriter) -> None:
    """Fit what the request names, and emit `costs.finished`. Raises RequestWithdrawn, JobFailed."""
    request = _read_request(store, id, attempt)
    written = store.read_if_exists(search_costs(id))
    if written is not None:
        events.send("costs.finished", data=CostModel.model_validate_json(written).model_dump(mode="json"))
        return
    events.send("costs.started")
    work = _plan(request)
    try:
        model = _fit(work, _measure(store, id, attempt, work, events))
    except MissingExtra as error:
        raise JobFailed("missing_extra", str(error)) from error
    except ValueError as error:
        raise JobFailed("costs_failed", str(error)) from error
    document = model.model_dump(mode="json")
    _read_request(store, id, attempt)
    store.write_bytes(search_costs(id), model.model_dump_json().encode())
    events.send("costs.finished", data=document)


def layouts_of(key: Key, limit: int | None) -> int:
    """Return the number of layouts that a key is measured on."""
    return limit if limit is not None else SLOW_LAYOUTS if key.engine in SLOW_TO_BUILD else LAYOUTS


def _plan(request: CostsRequest) -> _Work:
    """Raises JobFailed."""
    teacher = _teacher_layout(request)
    largest = request.largest or teacher
    if not isinstance(largest, Layout):
        message = f"{request.teacher.model} is a {largest.family}, whose students have other layouts; give the largest of them"
        raise JobFailed("unsupported_architecture", message, pointer="/largest", value=request.teacher.model)
    if not request.hardware:
        raise JobFailed("costs_failed", "there is no latency to fit", pointer="/hardware")
    devices = {device_of(hardware.device) for hardware in request.hardware}
    if len(devices) > 1:
        raise JobFailed("costs_failed", "latencies are of one device, either cpu or cuda", pointer="/hardware")
    keys = sorted({Key.of(hardware) for hardware in request.hardware}, key=str)
    towers: set[Tower] = {key.tower for key in keys}
    counts = {key: max(MIN_LAYOUTS, layouts_of(key, request.layouts)) for key in keys}
    layouts = sample_layouts(largest, towers, max(counts.values()), request.seed)
    of_layouts = [[key for key in keys if number < counts[key]] for number in range(len(layouts))]
    own = [teacher] if isinstance(teacher, Layout) else []
    return _Work([*own, *layouts], [*([keys] if own else []), *of_layouts], devices.pop(), bool(own), largest == teacher)


def _teacher_layout(request: CostsRequest) -> AnyLayout:
    """Raises JobFailed."""
    try:
        return find_teacher(request.teacher).layout
    except TeacherError as error:
        raise JobFailed("unreadable_model", error.message, pointer=error.pointer, value=request.teacher.model) from error


def _measure(store: ArtifactsStore, id: str, attempt: int, work: _Work, events: EventWriter) -> list[dict[str, float]]:
    """Return milliseconds by key of each layout, measured now or by an earlier attempt on such hardware."""
    hardware = describe_hardware(work.device)
    found = [_kept(store, id, number, layout, hardware) for number, layout in enumerate(work.layouts)]
    missing = [number for number, keys in enumerate(work.keys) if not {str(key) for key in keys} <= found[number].keys()]
    size = _group_size(work)
    for start in range(0, len(missing), size):
        group = missing[start : start + size]
        _read_request(store, id, attempt)
        with tempfile.TemporaryDirectory(prefix="tinyclip-costs-") as cache:
            layouts, keys = [work.layouts[number] for number in group], [work.keys[number] for number in group]
            measured = measure_layouts(layouts, keys, Path(cache), work.device)
        for number, latencies in zip(group, measured, strict=True):
            found[number] = latencies
            kept = MeasuredLayout(layout=work.layouts[number], hardware=hardware, latencies_ms=latencies)
            store.write_bytes(search_costs_measured(id, number), kept.model_dump_json().encode())
        done = len(work.layouts) - len(missing) + start + len(group)
        message = f"measured {done} of {len(work.layouts)} layouts"
        events.send("costs.progress", message=message, data={"fraction": done / len(work.layouts)})
    return found


def _group_size(work: _Work) -> int:
    """Return how many layouts fit into memory: one model of each for every engine, and what is made while it is built."""
    engines = len({(key.engine, key.threads) for keys in work.keys for key in keys})
    largest = max(sizes_of(layout).bytes["fp32"] for layout in work.layouts)
    return max(1, min(GROUP, GROUP_BYTES // ((engines + 1) * largest)))


def _kept(store: ArtifactsStore, id: str, number: int, layout: Layout, hardware: str) -> dict[str, float]:
    content = store.read_if_exists(search_costs_measured(id, number))
    if content is None:
        return {}
    kept = MeasuredLayout.model_validate_json(content)
    return kept.latencies_ms if (kept.layout, kept.hardware) == (layout, hardware) else {}


def _fit(work: _Work, measured: Sequence[dict[str, float]]) -> CostModel:
    """Fit each key to the layouts that it was measured on."""
    engines = {}
    for key in sorted({key for keys in work.keys for key in keys}, key=str):
        rows = [(layout, found[str(key)]) for layout, found in zip(work.layouts, measured, strict=True) if str(key) in found]
        fitted = rows[1:] if work.has_teacher and not work.fits_teacher else rows
        engines[str(key)] = fit(key, [layout for layout, _ in fitted], [ms for _, ms in fitted])
    return CostModel(
        hardware=describe_hardware(work.device), engines=engines, teacher_ms=dict(measured[0]) if work.has_teacher else {}
    )


def _read_request(store: ArtifactsStore, id: str, attempt: int) -> CostsRequest:
    """Raises RequestWithdrawn, JobFailed."""
    try:
        request = CostsRequest.model_validate_json(store.read_bytes(search_costs_request(id)))
    except FileNotFoundError as error:
        raise RequestWithdrawn(f"search {id} was deleted") from error
    except ValidationError as error:
        raise JobFailed("costs_failed", f"{store.uri(search_costs_request(id))} is not a request for costs: {error}") from error
    if request.attempt != attempt:
        raise RequestWithdrawn(f"attempt {request.attempt} of search {id} has taken over")
    return request
