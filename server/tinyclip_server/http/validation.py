"""Pydantic's complaints as field errors: pointers into what the user wrote, and a suggestion for a misspelt field."""

import difflib
import json
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from tinyclip.schemas import FieldError

MAX_SHOWN_CHARS = 500


def field_errors(complaints: Sequence[Any], body: Any, model: type[BaseModel] | None) -> list[FieldError]:
    """One error a place; what the branches of a union say about the same place is joined.

    `complaints` are `ValidationError.errors()` without the leading "body" in `loc`; `body` is the input, `model` its schema.
    """
    merged: dict[str, FieldError] = {}
    for complaint in complaints:
        error = _field_error(complaint, body, model)
        known = merged.get(error.pointer)
        if known is None:
            merged[error.pointer] = error
        elif error.message not in known.message:
            known.message += f"; or {error.message[0].lower()}{error.message[1:]}"
    return list(merged.values())


def pointer_of(path: Sequence[str | int]) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _field_error(complaint: Any, body: Any, model: type[BaseModel] | None) -> FieldError:
    kind, value = complaint["type"], complaint.get("input")
    path = _path_in_input(complaint["loc"], body, missing=kind == "missing")
    message = str(complaint["msg"]).removeprefix("Value error, ")
    if kind == "missing":
        value, message = None, "this field is required"
    elif kind == "extra_forbidden":
        message = _unknown_field(path, model)
    return FieldError(pointer=pointer_of(path), value=_shown(value), message=message)


def _path_in_input(location: Sequence[str | int], body: Any, *, missing: bool) -> list[str | int]:
    """Keep of pydantic's location what leads through the input, without the names of union branches."""
    path: list[str | int] = []
    cursor = body
    for position, part in enumerate(location):
        if (isinstance(cursor, dict) and part in cursor) or (
            isinstance(cursor, list) and isinstance(part, int) and part < len(cursor)
        ):
            path.append(part)
            cursor = cursor[part]  # type: ignore[index]  # a number only in a list, as just checked
        elif missing and position == len(location) - 1:
            path.append(part)
    return path


def _unknown_field(path: list[str | int], model: type[BaseModel] | None) -> str:
    known = sorted({name for holder in _models_at(path[:-1], model) for name in holder.model_fields})
    close = difflib.get_close_matches(str(path[-1]) if path else "", known, n=1, cutoff=0.6)
    if close:
        return f"unknown field; did you mean {close[0]}?"
    return f"unknown field; known here: {', '.join(known)}" if known else "unknown field; remove it"


def _models_at(path: Sequence[str | int], model: type[BaseModel] | None) -> list[type[BaseModel]]:
    """The schemas that may stand at a path below `model`."""
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


def _shown(value: Any) -> Any:
    """The value if it is short enough to be read, else nothing."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = str(value)
        value = text
    return value if len(text) <= MAX_SHOWN_CHARS else None
