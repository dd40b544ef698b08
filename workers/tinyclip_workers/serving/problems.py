"""Errors that a request is answered with: problem documents (RFC 9457) that name the field, its value and what to do."""

from typing import Any

import pydantic
from tinyclip.schemas import JSON, FieldError, Problem
from tinyclip.validation import INVALID_INPUT, MAX_ERRORS, field_errors, shown_value, summary


class ProblemError(Exception):
    """An error that is answered with a problem document."""

    def __init__(self, problem: Problem, headers: dict[str, str] | None = None) -> None:
        super().__init__(problem.detail)
        self.problem, self.headers = problem, headers or {}


def problem_error(
    status: int, code: str, title: str, detail: str, *, retryable: bool = False, headers: dict[str, str] | None = None
) -> ProblemError:
    return ProblemError(Problem(status=status, code=code, title=title, detail=detail, retryable=retryable), headers)


def invalid_input(*errors: FieldError, total: int = 0) -> ProblemError:
    """Return a 422 that lists the first MAX_ERRORS fields that are wrong; `total` is the number of all, if it is larger."""
    listed = errors[:MAX_ERRORS]
    title, detail = "The request cannot be processed", summary(listed, max(total, len(errors)))
    return ProblemError(Problem(status=422, code=INVALID_INPUT, title=title, detail=detail, errors=list(listed)))


def invalid_document(
    error: pydantic.ValidationError, document: JSON, model: type[pydantic.BaseModel], at: str = ""
) -> ProblemError:
    """Return a 422 with pydantic's errors about a document at the pointer `at`."""
    found = error.errors(include_url=False, include_context=False)
    return invalid_input(*field_errors(found, document, model, at), total=len(found))


def field_error(pointer: str, value: Any, message: str) -> FieldError:
    return FieldError(pointer=pointer, value=shown_value(value), message=message)
