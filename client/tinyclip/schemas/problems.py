"""Problem documents (RFC 9457), the format of all errors."""

from typing import Any

from tinyclip.schemas._base import Response


class FieldError(Response):
    """One invalid field, its value and what to do."""

    pointer: str
    """A JSON pointer, as `/stages/1/student/image/layers`."""
    value: Any = None
    message: str


class Problem(Response):
    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    instance: str | None = None
    code: str
    request_id: str | None = None
    retryable: bool = False
    errors: list[FieldError] = []
