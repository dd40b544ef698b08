"""The `filter` of a search: conditions on the metadata of hits.

    {"year": 2020}                           equal
    {"tags": ["red", "blue"]}                equal to any of these
    {"year": {"gte": 2000, "lt": 2010}}      in a range; also gt, lte, ne (not equal) and in (any of)
    {"camera.make": "Leica"}                 a nested key, by a dotted path

All conditions must hold. One element of a list in the metadata must match. Numbers are compared with numbers, texts with texts.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Scalar = str | int | float | bool

BOUNDS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
OPERATORS = (*BOUNDS, "ne", "in")
LONGEST_TEXT = 200
"""The most characters of a text that is compared; longer ones in the metadata match nothing."""
LARGEST = sys.float_info.max
MOST_CONDITIONS, MOST_VALUES = 20, 1000


class FilterError(ValueError):
    """An invalid filter: `pointer` is a JSON pointer to the invalid part."""

    def __init__(self, pointer: str, value: Any, message: str) -> None:
        super().__init__(message)
        self.pointer, self.value = pointer, value


@dataclass(frozen=True)
class Condition:
    """The condition on the values at one path: all parts that are given."""

    path: str
    any_of: tuple[Scalar, ...] | None = None
    bounds: tuple[tuple[str, Scalar], ...] = ()
    """Pairs of an operator of `BOUNDS` and a value, all of one kind."""
    none_of: tuple[Scalar, ...] = ()


def parse_filter(document: dict[str, Any]) -> list[Condition]:
    """Parse a filter. Raises `FilterError` for the first invalid part."""
    if len(document) > MOST_CONDITIONS:
        raise FilterError("", len(document), f"has {len(document)} conditions, more than {MOST_CONDITIONS}")
    return [_condition(path, given, f"/{path.replace('~', '~0').replace('/', '~1')}") for path, given in document.items()]


def _condition(path: str, given: Any, pointer: str) -> Condition:
    if not path.strip("."):
        raise FilterError(pointer, path, "is not a path; name a key of the metadata, nested ones with dots")
    if isinstance(given, list):
        return Condition(path, any_of=_values(given, pointer))
    if not isinstance(given, dict):
        return Condition(path, any_of=(_scalar(given, pointer),))
    if not given:
        raise FilterError(pointer, given, f"is empty; give a value, a list of values, or operators: {', '.join(OPERATORS)}")
    for operator, value in given.items():
        if operator not in OPERATORS:
            hint = f"known are {', '.join(OPERATORS)}; a nested key is written {path}.{operator}"
            raise FilterError(f"{pointer}/{operator}", value, f"unknown operator {operator}; {hint}")
    bounds = tuple((name, _scalar(given[name], f"{pointer}/{name}")) for name in BOUNDS if name in given)
    if any(isinstance(value, bool) for _, value in bounds) or len({isinstance(value, str) for _, value in bounds}) > 1:
        raise FilterError(pointer, given, "has bounds that cannot be compared; give numbers only, or texts only")
    return Condition(
        path,
        any_of=_values(given["in"], f"{pointer}/in") if "in" in given else None,
        bounds=bounds,
        none_of=(_scalar(given["ne"], f"{pointer}/ne"),) if "ne" in given else (),
    )


def _values(given: Any, pointer: str) -> tuple[Scalar, ...]:
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_VALUES:
        raise FilterError(pointer, given, f"give a list of 1 to {MOST_VALUES} values")
    return tuple(_scalar(value, f"{pointer}/{index}") for index, value in enumerate(given))


def _scalar(value: Any, pointer: str) -> Scalar:
    if not isinstance(value, str | int | float | bool):
        raise FilterError(pointer, value, "is not a text, a number, true or false")
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        raise FilterError(pointer, value, f"has more than the {LONGEST_TEXT} characters that are compared")
    if isinstance(value, str) and not _is_unicode(value):
        raise FilterError(pointer, value, "has a lone surrogate, which is not Unicode text")
    if not isinstance(value, str) and not -LARGEST <= value <= LARGEST:
        raise FilterError(pointer, str(value)[:50], "is a number that cannot be compared")
    return value


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def comparable_values(metadata: dict[str, Any]) -> Iterator[tuple[str, Scalar]]:
    """Yield the dotted paths and values of an item's metadata that conditions apply to, lists element by element."""
    stack: list[tuple[str, Any]] = list(metadata.items())
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict):
            stack += ((f"{path}.{key}", inner) for key, inner in value.items())
        elif isinstance(value, list):
            stack += ((path, inner) for inner in value)
        elif isinstance(value, str):
            if len(value) <= LONGEST_TEXT and _is_unicode(value) and _is_unicode(path):
                yield path, value
        elif isinstance(value, int | float) and -LARGEST <= value <= LARGEST and _is_unicode(path):
            yield path, value
