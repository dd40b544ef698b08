"""Problem documents (RFC 9457): the one shape of every error."""

from typing import Any

from tinyclip.schemas._base import Response


class FieldError(Response):
    """One bad field: where it is, what was there, what to do about it."""

    pointer: str
    """JSON pointer, as `/stages/1/student/image/layers`."""
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
