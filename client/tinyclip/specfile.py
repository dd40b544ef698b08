"""Spec files: YAML or JSON in, the mapping that is sent to the server out.

Relative paths in a file mean paths beside that file, so that a spec works from wherever it is submitted. Values given with
`--set` are typed at a shell and are relative to the current folder.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from tinyclip.errors import InputError

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WEIGHTS_FILE = re.compile(r"[/\\]|\.(pt|pth|bin|safetensors|npz)$")


class _Loader(yaml.SafeLoader):
    """YAML as people mean it in a spec: `1e-4` is a number, `2026-01-01` is text, `yes` and `off` are text."""

    yaml_implicit_resolvers: dict[str, Any] = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float", ":bool"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\.\d[\d_]*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.(inf|nan))$", re.I),
    list("-+0123456789."),
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$", re.I), list("tTfF"))


def load_spec(file: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Reads a spec file, applies `a.b=1` overrides and makes every path absolute.

    Raises `InputError` for a file that cannot be read or an override that names no place."""
    spec = _read(file)
    _resolve_paths(spec, file.absolute().parent)
    for override in overrides:
        set_value(spec, override)
    _resolve_paths(spec, Path.cwd())
    return spec


def load_tasks(file: Path) -> tuple[list[dict[str, Any]], float | None]:
    """The evaluation tasks of a file, their paths made absolute, and the holdout that it says.

    One task, a list of them, `{tasks: […], holdout: …}`, or a whole job spec. Raises `InputError` for a file that holds none.
    """
    held = _read_yaml(file)
    holdout = held.get("holdout") if isinstance(held, dict) and "tasks" in held else None
    if isinstance(held, dict) and "evaluation" in held:
        holdout = _mapping(_mapping(held.get("data")).get("train")).get("holdout")
        held = _mapping(held["evaluation"])
    tasks = held.get("tasks", [held] if "kind" in held else []) if isinstance(held, dict) else held
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        raise InputError(f"task file {file}", "holds no evaluation tasks; write {name: …, kind: …, shards: …}, or a list of them")
    _resolve_paths({"evaluation": {"tasks": tasks}}, file.absolute().parent)
    return tasks, holdout


def absolute_model(model: str) -> str:
    """A model named at a shell: the path of a `local-dir:` one is relative to the current folder."""
    named = {"teacher": {"model": model}}
    _resolve_paths(named, Path.cwd())
    return named["teacher"]["model"]


def parse_assignments(overrides: Sequence[str]) -> dict[str, Any]:
    """`a.b=1` assignments as a mapping of dotted places to typed values."""
    return dict(_parse(override) for override in overrides)


def set_value(spec: dict[str, Any], override: str) -> None:
    """Applies one `stages.0.train.steps=10`. Mappings on the way are made; list entries must exist."""
    place, value = _parse(override)
    *parents, last = place.split(".")
    holder: Any = spec
    for depth, key in enumerate(parents):
        if isinstance(holder, dict):
            if holder.get(key) is None:
                holder[key] = {}
            holder = holder[key]
        else:
            holder = holder[_list_place(holder, key, override, ".".join(parents[:depth]))]
    if isinstance(holder, dict):
        holder[last] = value
    else:
        holder[_list_place(holder, last, override, ".".join(parents))] = value


def _read(file: Path) -> dict[str, Any]:
    spec = _read_yaml(file)
    if not isinstance(spec, dict):
        raise InputError(f"spec file {file}", f"holds {_kind(spec)}; a spec is a mapping that starts with name: …")
    return spec


def _read_yaml(file: Path) -> Any:
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as failure:
        raise InputError(f"spec file {file}", f"{failure.strerror}; name a YAML or JSON file") from failure
    except UnicodeDecodeError as failure:
        raise InputError(f"spec file {file}", f"not UTF-8 text ({failure.reason} at byte {failure.start})") from failure
    except yaml.YAMLError as failure:
        mark = getattr(failure, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"spec file {file}{where}", f"not YAML: {getattr(failure, 'problem', None) or failure}") from failure


def _parse(override: str) -> tuple[str, Any]:
    place, equals, text = override.partition("=")
    if not equals or not all(place.split(".")):
        raise InputError(f"--set {override}", "write it as optimizer.lr=1e-4 or stages.0.train.steps=100")
    try:
        return place, yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as failure:
        reason = getattr(failure, "problem", None) or failure
        raise InputError(f"--set {override}", f"the value is not YAML; quote it ({reason})") from failure


def _list_place(holder: Any, key: str, override: str, parent: str) -> int:
    if not isinstance(holder, list):
        raise InputError(f"--set {override}", f"{parent} is {_kind(holder)} and has nothing below it")
    if not key.isdigit() or int(key) >= len(holder):
        raise InputError(f"--set {override}", f"{parent} has entries 0 to {len(holder) - 1}, not {key}")
    return int(key)


def _kind(value: Any) -> str:
    return {dict: "a mapping", list: "a list", str: "text", type(None): "nothing"}.get(type(value), repr(value))


def _resolve_paths(spec: dict[str, Any], folder: Path) -> None:
    """Makes the paths of a spec absolute where they stand; what has another shape is left for the server to refuse."""
    for teacher in [_mapping(spec.get("teacher")), *_mappings(spec.get("teachers"))]:
        _replace(teacher, "model", lambda model: _local_dir(model, folder))
        _replace(teacher, "pretrained", lambda tag: absolute(tag, folder) if _WEIGHTS_FILE.search(tag) else tag)
    train = _mapping(_mapping(spec.get("data")).get("train"))
    _replace(train, "shards", lambda shards: absolute(shards, folder))
    for holder in [spec, *_mappings(spec.get("stages"))]:
        _replace(_mapping(holder.get("objective")), "clusters", lambda file: absolute(file, folder))
    for task in _mappings(_mapping(spec.get("evaluation")).get("tasks")):
        for key in ("shards", "train_shards"):
            _replace(task, key, lambda shards: absolute(shards, folder))
        for key in ("classes", "templates"):
            if isinstance(task.get(key), str):
                task[key] = absolute(task[key], folder)


def absolute(path_or_uri: str, folder: Path) -> str:
    """A local path or pattern below `folder` if it is relative; braces and globs are kept, URIs untouched."""
    if _URI.match(path_or_uri):
        return path_or_uri
    return os.path.join(folder, os.path.expanduser(path_or_uri))


def _local_dir(model: str, folder: Path) -> str:
    prefix, colon, path_or_uri = model.partition(":")
    return f"local-dir:{absolute(path_or_uri, folder)}" if prefix == "local-dir" and colon else model


def _replace(holder: dict[str, Any], key: str, change: Callable[[str], str]) -> None:
    """Changes a string, or each string of a list."""
    value = holder.get(key)
    if isinstance(value, str):
        holder[key] = change(value)
    elif isinstance(value, list):
        holder[key] = [change(item) if isinstance(item, str) else item for item in value]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [_mapping(entry) for entry in value] if isinstance(value, list) else []
