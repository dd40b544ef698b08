"""Filters as SQL conditions over a column of JSON, with the same results as SQLite gives in segments.

The column `fields` holds every comparable value of an item's metadata in a list under its dotted path:
`{"year": [2003], "tags": ["a", "b"]}`.
Equality is containment and ranges are JSON paths; a GIN index supports both.
"""

import json
from collections.abc import Sequence

from tinyclip.filters import BOUNDS, Condition, Scalar, comparable_values
from tinyclip.schemas import JSON

from tinyclip_workers.retrieval.segment_writer import MAX_FILTER_VALUES, encodable

_ESCAPES = str.maketrans({"\x01": "\x01\x02", "\x00": "\x01\x01"})
"""Escapes for NUL, which PostgreSQL's texts cannot contain. They keep texts distinct and in order."""


def escape_text(text: str) -> str:
    return encodable(text).translate(_ESCAPES)


def unescape_text(escaped: str) -> str:
    """Invert `escape_text`, except for surrogates, which UTF-8 cannot encode."""
    return escaped.replace("\x01\x01", "\x00").replace("\x01\x02", "\x01") if "\x01" in escaped else escaped


def filter_fields(metadata: JSON) -> dict[str, list[Scalar]]:
    """Return the column `fields` of an item."""
    fields: dict[str, dict[tuple[bool, Scalar], Scalar]] = {}
    for path, value in list(comparable_values(metadata))[:MAX_FILTER_VALUES]:
        comparable = _to_json(value)
        fields.setdefault(escape_text(path), {})[isinstance(comparable, bool), comparable] = comparable  # true is not 1
    return {path: list(values.values()) for path, values in fields.items()}


def where_clause(conditions: Sequence[Condition]) -> tuple[str, list[str]]:
    """Return the condition after WHERE (`true` without conditions) and its parameters."""
    parts: list[str] = []
    parameters: list[str] = []
    for condition in conditions:
        if condition.any_of is not None:
            parts.append("fields @? %s::jsonpath")
            parameters.append(_json_path(condition.path, " || ".join(f"@ == {_literal(value)}" for value in condition.any_of)))
        if condition.bounds:
            parts.append("fields @? %s::jsonpath")
            bounds = " && ".join(f"@ {BOUNDS[name]} {_literal(value)}" for name, value in condition.bounds)
            parameters.append(_json_path(condition.path, bounds))
        for value in condition.none_of:
            parts.append("NOT fields @> %s::jsonb")
            parameters.append(json.dumps({escape_text(condition.path): [_to_json(value)]}))
    return " AND ".join(parts) or "true", parameters


def _json_path(path: str, test: str) -> str:
    return f"$.{json.dumps(escape_text(path))}[*] ? ({test})"


def _literal(value: Scalar) -> str:
    return json.dumps(_to_json(value))


def _to_json(value: Scalar) -> Scalar:
    """Return whole floats as integers, whose decimals are exact, and large integers rounded to floats, as SQLite has them."""
    if isinstance(value, str):
        return escape_text(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else int(float(value))
    return int(value) if value.is_integer() else value
