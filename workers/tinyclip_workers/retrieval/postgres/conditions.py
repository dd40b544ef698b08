"""What filters see of an item's metadata, as JSON that PostgreSQL compares just as the segments' SQLite does.

The column `fields` holds every value that can be compared in a list under its dotted path:
`{"year": [2003], "tags": ["a", "b"]}`.
Equality is containment and ranges are JSON paths, both answered by a GIN index where they name values.
"""

import json
from collections.abc import Sequence

from tinyclip.filters import BOUNDS, Condition, Scalar, comparable_values
from tinyclip.schemas import JSON

from tinyclip_workers.retrieval.segment_writer import MOST_VALUES, storable

_TO_STORED = str.maketrans({"\x01": "\x01\x02", "\x00": "\x01\x01"})
"""PostgreSQL's texts hold no NUL. Other texts stay others, and their order stays."""


def stored_text(text: str) -> str:
    return storable(text).translate(_TO_STORED)


def given_text(stored: str) -> str:
    """What `stored_text` was given, but for what no UTF-8 holds."""
    return stored.replace("\x01\x01", "\x00").replace("\x01\x02", "\x01") if "\x01" in stored else stored


def fields_of(metadata: JSON) -> dict[str, list[Scalar]]:
    """The column `fields` of an item."""
    fields: dict[str, dict[tuple[bool, Scalar], Scalar]] = {}
    for path, value in list(comparable_values(metadata))[:MOST_VALUES]:
        kept = _stored(value)
        fields.setdefault(stored_text(path), {})[isinstance(kept, bool), kept] = kept  # true is not 1
    return {path: list(values.values()) for path, values in fields.items()}


def where(conditions: Sequence[Condition]) -> tuple[str, list[str]]:
    """What follows WHERE (`true` without conditions), and its parameters."""
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
            parameters.append(json.dumps({stored_text(condition.path): [_stored(value)]}))
    return " AND ".join(parts) or "true", parameters


def _json_path(path: str, test: str) -> str:
    return f"$.{json.dumps(stored_text(path))}[*] ? ({test})"


def _literal(value: Scalar) -> str:
    return json.dumps(_stored(value))


def _stored(value: Scalar) -> Scalar:
    """Whole numbers as integers, since a float's decimals need not be its value; large ones as floats have them, as SQLite."""
    if isinstance(value, str):
        return stored_text(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else int(float(value))
    return int(value) if value.is_integer() else value
