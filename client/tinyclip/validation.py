"""Field errors of a problem document from pydantic's validation errors, for every HTTP interface of TinyCLIP."""

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from tinyclip.schemas import FieldError

INVALID_INPUT = "invalid_input"
"""The error code of a request whose fields do not validate."""
MAX_VALUE_CHARS = 500
"""Characters of a rejected value that a field error repeats."""
MAX_PREFIX_CHARS = 80
"""Characters that it repeats of a longer string."""
MAX_ERRORS = 50
"""Field errors of one problem document; its detail has the number of all."""
MAX_SUGGESTIONS = 10
"""Unknown fields of one problem document for which a similar name is searched."""
MAX_NAME_CHARS = 64
"""Characters of an unknown field up to which a similar name is searched."""


def field_errors(errors: Iterable[Any], document: Any, model: type[BaseModel] | None, at: str = "") -> list[FieldError]:
    """Return one error a place in `document`, for the first MAX_ERRORS places.

    The messages of a union's branches about the same place are joined. `errors` are those of `ValidationError.errors()`, `model`
    is the schema of the document, `at` the pointer to it.
    """
    merged: dict[str, FieldError] = {}
    suggestions = 0
    for raw in errors:
        suggestions += raw["type"] == "extra_forbidden"
        error = _field_error(raw, document, model, at, suggest=suggestions <= MAX_SUGGESTIONS)
        known = merged.get(error.pointer)
        if known is None:
            if len(merged) == MAX_ERRORS:
                break
            merged[error.pointer] = error
        elif error.message not in known.message:
            known.message += f"; or {error.message[0].lower()}{error.message[1:]}"
    return list(merged.values())


def summary(errors: Sequence[FieldError], total: int = 0) -> str:
    """Return the first error as the detail of a problem document, and how many more there are.

    `total` is the number of all errors, if some of them are not in the list.
    """
    first, others = errors[0], max(total, len(errors)) - 1
    listed = f", of which {len(errors) - 1} are listed" if others >= len(errors) else ""
    more = f" (and {others:,} more{listed})" if others else ""
    place = f"{first.pointer}: " if first.pointer else ""
    return f"{place}{first.message}{more}"


def pointer_of(path: Iterable[str | int]) -> str:
    """Return a path as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def shown_value(value: Any) -> Any:
    """Return the value as a field error repeats it: a long string is cut, any other long value is None."""
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, str):
        kept = value if len(value) <= MAX_VALUE_CHARS else value[:MAX_PREFIX_CHARS]
        readable = kept.encode("utf-8", "backslashreplace").decode()  # a lone surrogate is not valid JSON
        return readable if kept == value else f"{readable}… ({len(value):,} characters)"
    if not _is_short(value):
        return None
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = value = str(value)
    return value if len(text) <= MAX_VALUE_CHARS else None


def _is_short(value: Any) -> bool:
    """Return whether a value has few parts, without visiting more of them."""
    rest, parts = [value], 0
    while rest:
        value = rest.pop()
        if isinstance(value, dict | list | tuple | str):
            parts += len(value)
        if parts > MAX_VALUE_CHARS:
            return False
        if isinstance(value, dict | list | tuple):
            rest += value.values() if isinstance(value, dict) else value
    return True


def _field_error(raw: Any, document: Any, model: type[BaseModel] | None, at: str, *, suggest: bool) -> FieldError:
    kind, value = raw["type"], raw.get("input")
    path = _path_in_document(raw["loc"], document, missing=kind == "missing")
    message = str(raw["msg"]).removeprefix("Value error, ")
    if kind == "missing":
        value, message = None, "this field is required"
    elif kind == "string_unicode":
        message = "has a lone surrogate, which is no Unicode text"
    elif kind == "extra_forbidden":
        message = _unknown_field(path, model, suggest=suggest)
    return FieldError(pointer=at + pointer_of(path), value=shown_value(value), message=message)


def _path_in_document(location: Sequence[str | int], document: Any, *, missing: bool) -> list[str | int]:
    """Return the parts of pydantic's location that exist in the document: without the names of union branches."""
    path: list[str | int] = []
    cursor = document
    for position, part in enumerate(location):
        if (isinstance(cursor, dict) and part in cursor) or (
            isinstance(cursor, list) and isinstance(part, int) and part < len(cursor)
        ):
            path.append(part)
            cursor = cursor[part]  # type: ignore[index]  # a number only in a list, as just checked
        elif missing and position == len(location) - 1:
            path.append(part)
    return path


def _unknown_field(path: list[str | int], model: type[BaseModel] | None, *, suggest: bool) -> str:
    known = sorted({name for holder in _models_at(path[:-1], model) for name in holder.model_fields})
    name = str(path[-1]) if path else ""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6) if suggest and len(name) <= MAX_NAME_CHARS else []
    if close:
        return f"unknown field; did you mean {close[0]}?"
    return f"unknown field; known here: {', '.join(known)}" if known else "unknown field; remove it"


def _models_at(path: Sequence[str | int], model: type[BaseModel] | None) -> list[type[BaseModel]]:
    """Return the schemas that are possible at a path below `model`."""
    here = [model] if model else []
    for part in path:
        if isinstance(part, int):  # the item types were already taken out of their list
            continue
        fields = [holder.model_fields[part] for holder in here if part in holder.model_fields]
        here = [found for field in fields for found in _models_in(field.annotation)]
    return here


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, list, tuple, Annotated):
        for argument in get_args(annotation):
            yield from _models_in(argument)
