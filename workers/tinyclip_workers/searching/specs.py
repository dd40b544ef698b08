"""Specs of trials: the search's own spec with other sizes, lengths and settings."""

import copy
from collections.abc import Mapping
from typing import Any

from tinyclip.artifacts.searches import SearchRecord, TrialRecord
from tinyclip.schemas._base import JSON

from tinyclip_workers.searching.costs import Costs
from tinyclip_workers.searching.sizes import WHOLE, Size, Tower, manual_towers


def with_settings(spec: JSON, settings: Mapping[str, Any]) -> JSON:
    """Return a copy of a spec in which fields have other values. Raises ValueError for a path that it cannot have."""
    changed = copy.deepcopy(spec)
    for path, value in settings.items():
        *parents, last = path.split(".")
        place: Any = changed
        for part in parents:
            place = _step_into(place, part, path)
        if isinstance(place, list):
            place[_index(place, last, path)] = value
        else:
            place[last] = value
    return changed


def shortened(stage: JSON, share: float) -> JSON:
    """Return a stage with a share of its length."""
    if share >= 1:
        return stage
    unit, length = next((unit, length) for unit, length in stage["train"].items() if length is not None)
    short = {**stage, "train": {unit: length * share if unit == "epochs" else max(1, round(length * share))}}
    for owner in ("optimizer", "prune"):
        settings = stage.get(owner)
        if settings:
            steps = {name: settings[name] for name in ("warmup_steps", "sparsity_warmup", "prune_step") if settings.get(name)}
            short[owner] = {**settings, **{name: max(1, round(value * share)) for name, value in steps.items()}}
    return short


def continued(spec: JSON, parent: TrialRecord, share: float) -> JSON:
    """Return a spec that trains a trial's student further."""
    stage = {**spec["stages"][-1], "inherit": "manual", "select": "importance", "student": {}, "prune": None}
    return _of_stages(spec, [shortened(stage, share)], parent, share)


def cut(spec: JSON, size: Size, record: SearchRecord, costs: Costs, parent: TrialRecord | None, share: float) -> JSON:
    """Return a spec whose student has a size, cut out of the teacher or of an earlier trial's student."""
    teacher = record.teacher
    assert teacher is not None  # sizes are of its towers
    stage = spec["stages"][-1]
    if teacher.image.kind == "resnet":
        image, text = manual_towers(size, teacher)
        student = {"image": image.model_dump(exclude_none=True), "text": text.model_dump(exclude_none=True)}
        manual = {**stage, "inherit": "manual", "select": "importance", "student": student, "prune": None}
        return _of_stages(spec, [shortened(manual, share)], parent, share)
    whole = Size(1.0, 1.0, tuple(teacher.image.layers), teacher.text.layers)
    before = Size.from_json(parent.settings["size"]) if parent is not None else whole
    order: tuple[Tower, ...] = ("text", "image")
    towers = [tower for tower in order if _is_cut(size, before, tower)]
    stages = [_automatic(stage, size, before, tower, costs, record) for tower in towers]
    for index, early in enumerate(stages[:-1]):  # only the last of them trains
        stages[index] = {**early, "name": f"{early['name'][:50]}-{towers[index]}", "train": {"steps": 1}}
    if not stages:
        stages = [{**stage, "inherit": "manual", "select": "importance", "student": {}, "prune": None}]
    stages[-1] = shortened(stages[-1], share)
    return _of_stages(spec, stages, parent, share)


def _automatic(stage: JSON, size: Size, before: Size, tower: Tower, costs: Costs, record: SearchRecord) -> JSON:
    """Return an automatic stage that cuts one tower."""
    own, old = (size.image, before.image) if tower == "image" else (size.text, before.text)
    blocks = sum(size.image_layers) if tower == "image" else size.text_layers
    prune: JSON = {"towers": [tower], "target_sparsity": round(min(0.99, max(0.005, 1 - own / old)), 6)}
    if blocks < (sum(before.image_layers) if tower == "image" else before.text_layers):
        prune["layers"] = {tower: blocks}
    target = _latency_target(size, tower, costs, record)
    if target is not None:  # units are then selected by their milliseconds, not by their parameters
        del prune["target_sparsity"]
        prune["target"] = target
    return {**stage, "inherit": "auto", "student": None, "prune": {"search": "importance", **prune}}


def _latency_target(size: Size, tower: Tower, costs: Costs, record: SearchRecord) -> JSON | None:
    """Return the predicted latency of a size as a target, if a latency of the tower counts and has been fitted."""
    for cost in costs.distinct:
        fitted = record.costs.engines.get(cost.key) if record.costs is not None else None
        if cost.name == "latency_ms" and cost.tower == tower and fitted is not None and record.teacher is not None:
            return {
                "latency_ms": round(costs.predict(size.layout(record.teacher), cost), 6), "engine": cost.engine, "tower": tower,
                "batch": cost.batch, "threads": cost.threads, "coefficients": fitted.coefficients,
            }  # fmt: skip
    return None


def _is_cut(size: Size, before: Size, tower: Tower) -> bool:
    if tower == "image":
        return size.image < before.image * WHOLE or size.image_layers != before.image_layers
    return size.text < before.text * WHOLE or size.text_layers != before.text_layers


def _of_stages(spec: JSON, stages: list[JSON], parent: TrialRecord | None, share: float) -> JSON:
    if parent is not None:
        assert parent.model is not None  # only finished trials are parents
        stages = [{**stages[0], "inherit_from": f"registry:{parent.model.name}@{parent.model.version}"}, *stages[1:]]
    short = shortened({"train": {"steps": 1}, "optimizer": spec.get("optimizer")}, share)
    return {**spec, "stages": stages, **({"optimizer": short["optimizer"]} if spec.get("optimizer") else {})}


def _step_into(place: Any, part: str, path: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, part, path)]
    if place.get(part) is None:
        place[part] = {}
    if not isinstance(place[part], dict | list):
        raise ValueError(f"{path}: {part} is a value and has no fields")
    return place[part]


def _index(place: list[Any], part: str, path: str) -> int:
    if not part.isdigit() or int(part) >= len(place):
        raise ValueError(f"{path}: {part} is no place in a list of {len(place)}; give a number below that")
    return int(part)
