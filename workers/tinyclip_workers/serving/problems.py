"""Errors that a request is answered with: problem documents (RFC 9457) that name the field, its value and what to do."""

import difflib
from collections.abc import Sequence
from typing import Any

import pydantic
from tinyclip.schemas import FieldError, Problem

MAX_SHOWN_CHARS = 80
"""Characters of a rejected value that are repeated: enough to recognise it, not the whole image."""


class ProblemError(Exception):
    """An error that is answered with a problem document."""

    def __init__(self, problem: Problem, headers: dict[str, str] | None = None) -> None:
        super().__init__(problem.detail)
        self.problem, self.headers = problem, headers or {}


def problem_error(
    status: int, code: str, title: str, detail: str, *, retryable: bool = False, headers: dict[str, str] | None = None
) -> ProblemError:
    return ProblemError(Problem(status=status, code=code, title=title, detail=detail, retryable=retryable), headers)


def invalid_input(*errors: FieldError) -> ProblemError:
    """Return a 422 that lists the fields that are wrong."""
    detail = "; ".join(f"{error.pointer}: {error.message}" for error in errors[:3])
    more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
    return ProblemError(
        Problem(
            status=422, code="invalid_request", title="The request cannot be processed", detail=detail + more, errors=list(errors)
        )
    )


def field_error(pointer: str, value: Any, message: str) -> FieldError:
    return FieldError(pointer=pointer, value=shown_value(value), message=message)


def invalid_fields(error: pydantic.ValidationError, model: type[pydantic.BaseModel], at: str = "") -> ProblemError:
    """Return a 422 with pydantic's errors about a document at the pointer `at`."""
    return invalid_input(*(_field_error(found, model, at) for found in error.errors(include_url=False)))


def shown_value(value: Any) -> Any:
    """Return a rejected value as an answer repeats it: cut to what identifies it."""
    if isinstance(value, str):
        readable = value[:MAX_SHOWN_CHARS].encode("utf-8", "backslashreplace").decode()  # a lone surrogate is not valid JSON
        return readable if len(value) <= MAX_SHOWN_CHARS else f"{readable}… ({len(value):,} characters)"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, list):
        return [shown_value(item) for item in value[:5]]
    return value if isinstance(value, int | float | bool) or value is None else type(value).__name__


def _field_error(found: Any, model: type[pydantic.BaseModel], at: str) -> FieldError:
    where: Sequence[str | int] = found["loc"]
    pointer = at + "".join(f"/{part}" for part in where) or "/"
    if found["type"] == "extra_forbidden":
        return field_error(pointer, found["input"], _unknown_field(str(where[-1]), model))
    if found["type"] == "missing":
        return FieldError(pointer=pointer, message="is missing")
    return field_error(pointer, found["input"], found["msg"].removeprefix("Value error, "))


def _unknown_field(name: str, model: type[pydantic.BaseModel]) -> str:
    close = difflib.get_close_matches(name, model.model_fields, n=1)
    known = f"did you mean {close[0]}?" if close else f"known are {', '.join(model.model_fields)}"
    return f"unknown field; {known}"
