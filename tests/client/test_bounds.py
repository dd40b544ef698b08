"""Every text, list, mapping and key that a client may send has an upper bound."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import tinyclip.schemas  # noqa: F401 -- defines the subclasses
from pydantic import ValidationError
from tinyclip.schemas import EvaluationPost, LabelSetPut, Request


def requests() -> list[type[Request]]:
    """Return all schemas of requests, those of the SDK's own package only."""
    found, rest = [], [Request]
    while rest:
        schema = rest.pop()
        found += [schema] if schema is not Request else []
        rest += [sub for sub in schema.__subclasses__() if sub.__module__.startswith("tinyclip.")]
    return sorted(found, key=lambda schema: schema.__name__)


def unbounded(schema: Any, path: str = "") -> Iterator[str]:
    """Yield the places of a JSON schema that accept a text, list, object or key of any length."""
    kind = schema.get("type")
    if kind == "string" and "maxLength" not in schema and "enum" not in schema and "const" not in schema and not _ends(schema):
        yield path
    if kind == "array" and "maxItems" not in schema:
        yield path
    if kind == "object" and schema.get("additionalProperties") is not False:
        if "maxProperties" not in schema:
            yield path
        if "maxLength" not in schema.get("propertyNames", {}):
            yield f"{path} (keys)"
    for name, inner in schema.get("properties", {}).items():
        yield from unbounded(inner, f"{path}/{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from unbounded(schema[name], f"{path}/*")
    for name in ("anyOf", "oneOf", "allOf"):
        for inner in schema.get(name, []):
            yield from unbounded(inner, path)


def _ends(schema: Any) -> bool:
    """Return whether a pattern limits the length: it is anchored, and repeats nothing without a limit."""
    pattern = schema.get("pattern", "")
    return pattern.endswith("$") and not re.search(r"[*+]", re.sub(r"\[[^\]]*\]", "", pattern))


@pytest.mark.parametrize("schema", requests(), ids=lambda schema: schema.__name__)
def test_nothing_is_unbounded(schema: type[Request]) -> None:
    document = schema.model_json_schema()

    assert list(unbounded(document)) == []
    for name, definition in document.get("$defs", {}).items():
        assert [f"{name}{place}" for place in unbounded(definition)] == []


def test_the_walk_finds_what_is_unbounded() -> None:
    class Loose(Request):
        text: str
        texts: list[str]
        mapping: dict[str, int]

    assert list(unbounded(Loose.model_json_schema())) == ["/text", "/texts", "/texts/*", "/mapping", "/mapping (keys)"]


@pytest.mark.parametrize(
    "changes",
    [{"templates": [0] * 999}, {"image_key": [0] * 99}, {"where": {f"k{number}": [] for number in range(99)}}],
    ids=["templates", "image_key", "where"],
)
def test_a_wrong_list_or_mapping_of_many_tasks_gives_few_errors(changes: dict[str, Any]) -> None:
    task = {"name": "a", "kind": "zero_shot", "shards": "/a", **changes}

    with pytest.raises(ValidationError) as refused:
        EvaluationPost.model_validate({"model": "a", "tasks": [task] * 200})

    assert refused.value.error_count() <= 2 * 200  # one of each branch of a union


def test_wrong_labels_give_one_error() -> None:
    with pytest.raises(ValidationError) as refused:
        LabelSetPut.model_validate({"labels": [0] * 10_000})

    assert refused.value.error_count() == 1
