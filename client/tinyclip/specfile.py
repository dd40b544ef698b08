"""Spec files: YAML or JSON, read as the mapping that is sent to the server.

Relative paths in a file are relative to that file, so that a spec can be submitted from any folder. Values given with `--set` are
relative to the current folder.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tinyclip.errors import InputError

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PREFIX = re.compile(r"(hf-hub|local-dir|registry):")
_WEIGHTS_FILE = re.compile(r"[/\\]|\.(pt|pth|bin|safetensors|npz)$")


class _Loader(yaml.SafeLoader):
    """YAML in which `1e-4` is a number, and `2026-01-01`, `yes` and `off` are texts."""

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
    """Read a spec file, apply `a.b=1` overrides and make every path absolute.

    Raises `InputError` for an unreadable file or an invalid override."""
    spec = _read(file)
    _resolve_paths(spec, file.absolute().parent)
    for override in overrides:
        set_value(spec, override)
    _resolve_paths(spec, Path.cwd())
    return spec


def load_search(file: Path) -> dict[str, Any]:
    """Read a file with a search, whose `spec` is a job's spec or the path of one, and make every path absolute.

    Raises `InputError` for an unreadable file."""
    search, folder = _read(file), file.absolute().parent
    spec = search.get("spec")
    if isinstance(spec, str):
        search["spec"] = load_spec(folder / spec)
    elif isinstance(spec, dict):
        _resolve_paths(spec, folder)
    return search


def with_absolute_paths(text: str, folder: Path) -> str:
    """Return the text of a spec file in `folder` with its paths made absolute, and all else, such as comments, as it is.

    Raises `yaml.YAMLError`."""
    before, after = (yaml.load(text, Loader=_Loader) for _ in range(2))
    _resolve_paths(after, folder)
    changed = dict(_changed_texts(before, after))
    if not changed:
        return text
    longest_first = sorted(changed, key=len, reverse=True)
    pattern = re.compile(r"(?<![\w/.])(" + "|".join(map(re.escape, longest_first)) + r")(?![\w/])")
    lines = text.split("\n")
    for place, line in enumerate(lines):
        if not line.lstrip().startswith("#"):
            lines[place] = pattern.sub(lambda found: changed[found[1]], line)
    return "\n".join(lines)


def _changed_texts(before: Any, after: Any) -> Iterator[tuple[str, str]]:
    """Yield the texts that differ between two documents of the same form."""
    if isinstance(before, str) and before != after:
        yield before, after
    elif isinstance(before, dict):
        for key in before:
            yield from _changed_texts(before[key], after[key])
    elif isinstance(before, list):
        for one, other in zip(before, after, strict=True):
            yield from _changed_texts(one, other)


def load_dataset(file: Path | None, changes: Mapping[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read the description of a data set, set `changes` (values by dotted paths) and `a.b=1` overrides; make paths absolute.

    Without a file there is only what is set. Raises `InputError` as `load_spec`."""
    document = {} if file is None else _read(file)
    if file is not None:
        _resolve_paths(document, file.absolute().parent)
    for path, value in changes.items():
        _set_value(document, path, value, f"{path} in {file}")
    for override in overrides:
        set_value(document, override)
    _resolve_paths(document, Path.cwd())
    return document


def teacher_of(model: str) -> dict[str, str]:
    """Return the spec of a teacher that is named as in evaluations: `ARCHITECTURE/TAG`, `NAME@VERSION`, `hf-hub:ORG/NAME`, …"""
    model = absolute_model(model)
    if _PREFIX.match(model):
        return {"model": model}
    architecture, slash, tag = model.rpartition("/")
    return {"model": architecture, "pretrained": tag} if slash else {"model": f"registry:{model}"}


def load_tasks(file: Path) -> tuple[list[dict[str, Any]], float | None]:
    """Return the evaluation tasks of a file, with absolute paths, and its holdout.

    The file has one task, a list of them, `{tasks: […], holdout: …}`, or a whole job spec. Raises `InputError` if it has none.
    """
    content = _read_yaml(file)
    holdout = content.get("holdout") if isinstance(content, dict) and "tasks" in content else None
    if isinstance(content, dict) and "evaluation" in content:
        holdout = _mapping(_mapping(content.get("data")).get("train")).get("holdout")
        content = _mapping(content["evaluation"])
    tasks = content.get("tasks", [content] if "kind" in content else []) if isinstance(content, dict) else content
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        raise InputError(f"task file {file}", "holds no evaluation tasks; write {name: …, kind: …, shards: …}, or a list of them")
    _resolve_paths({"evaluation": {"tasks": tasks}}, file.absolute().parent)
    return tasks, holdout


def absolute_model(model: str) -> str:
    """Return a model's name, with the path of `local-dir:` made absolute from the current folder."""
    return _local_dir(model, Path.cwd())


def parse_assignments(overrides: Sequence[str]) -> dict[str, Any]:
    """Return `a.b=1` assignments as a mapping of dotted paths to typed values."""
    return dict(_parse(override) for override in overrides)


def set_value(spec: dict[str, Any], override: str) -> None:
    """Apply an override such as `stages.0.train.steps=10`. Missing mappings are created; list entries must exist."""
    path, value = _parse(override)
    _set_value(spec, path, value, f"--set {override}")


def _set_value(spec: dict[str, Any], path: str, value: Any, origin: str) -> None:
    *parents, last = path.split(".")
    holder: Any = spec
    for depth, key in enumerate(parents):
        if isinstance(holder, dict):
            if holder.get(key) is None:
                holder[key] = {}
            holder = holder[key]
        else:
            holder = holder[_list_index(holder, key, origin, ".".join(parents[:depth]))]
    if isinstance(holder, dict):
        holder[last] = value
    else:
        holder[_list_index(holder, last, origin, ".".join(parents))] = value


def _read(file: Path) -> dict[str, Any]:
    spec = _read_yaml(file)
    if not isinstance(spec, dict):
        raise InputError(f"spec file {file}", f"holds {_kind(spec)}; a spec is a mapping that starts with name: …")
    return spec


def _read_yaml(file: Path) -> Any:
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise InputError(f"spec file {file}", f"{error.strerror}; name a YAML or JSON file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"spec file {file}", f"not UTF-8 text ({error.reason} at byte {error.start})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"spec file {file}{where}", f"not YAML: {getattr(error, 'problem', None) or error}") from error


def _parse(override: str) -> tuple[str, Any]:
    path, equals, text = override.partition("=")
    if not equals or not all(path.split(".")):
        raise InputError(f"--set {override}", "write it as optimizer.lr=1e-4 or stages.0.train.steps=100")
    try:
        return path, yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or error
        raise InputError(f"--set {override}", f"the value is not YAML; quote it ({reason})") from error


def _list_index(holder: Any, key: str, origin: str, parent: str) -> int:
    if not isinstance(holder, list):
        raise InputError(origin, f"{parent} is {_kind(holder)} and has nothing below it")
    if not key.isdigit() or int(key) >= len(holder):
        raise InputError(origin, f"{parent} has entries 0 to {len(holder) - 1}, not {key}")
    return int(key)


def _kind(value: Any) -> str:
    return {dict: "a mapping", list: "a list", str: "text", type(None): "nothing"}.get(type(value), repr(value))


def _resolve_paths(spec: dict[str, Any], folder: Path) -> None:
    """Make the paths of a spec absolute in place; malformed parts are not touched, the server refuses them."""
    for teacher in [_mapping(spec.get("teacher")), *_mappings(spec.get("teachers"))]:
        _replace(teacher, "model", lambda model: _local_dir(model, folder))
        _replace(teacher, "pretrained", lambda tag: absolute(tag, folder) if _WEIGHTS_FILE.search(tag) else tag)
    for holder in (_mapping(_mapping(spec.get("data")).get("train")), _mapping(spec.get("source"))):  # of a job, of a data set
        for key in ("shards", "captions"):
            _replace(holder, key, lambda file: absolute(file, folder))
    _replace(_mapping(spec.get("tokenizer")), "folder", lambda path: absolute(path, folder))
    for holder in [spec, *_mappings(spec.get("stages"))]:
        _replace(_mapping(holder.get("objective")), "clusters", lambda file: absolute(file, folder))
    for task in [*_mappings(_mapping(spec.get("evaluation")).get("tasks")), *_mappings(spec.get("tasks"))]:
        for key in ("shards", "train_shards", "captions"):
            _replace(task, key, lambda shards: absolute(shards, folder))
        for key in ("classes", "templates"):
            by_language = _mapping(task.get(key))
            for texts, place in [(task, key), *((by_language, language) for language in by_language)]:
                if isinstance(texts.get(place), str):
                    texts[place] = absolute(texts[place], folder)


def absolute(path_or_uri: str, folder: Path) -> str:
    """Return a local path or pattern below `folder` if it is relative; braces, globs and URIs are kept."""
    if _URI.match(path_or_uri):
        return path_or_uri
    return os.path.join(folder, os.path.expanduser(path_or_uri))


def _local_dir(model: str, folder: Path) -> str:
    prefix, colon, path_or_uri = model.partition(":")
    return f"local-dir:{absolute(path_or_uri, folder)}" if prefix == "local-dir" and colon else model


def _replace(holder: dict[str, Any], key: str, change: Callable[[str], str]) -> None:
    """Change a string of a mapping, or each string of a list."""
    value = holder.get(key)
    if isinstance(value, str):
        holder[key] = change(value)
    elif isinstance(value, list):
        holder[key] = [change(item) if isinstance(item, str) else item for item in value]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [_mapping(entry) for entry in value] if isinstance(value, list) else []
