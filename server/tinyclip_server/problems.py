"""Errors with an HTTP status and an error code, which `api/error_handlers.py` answers as problem documents (RFC 9457).

ApiError
├── InvalidInput     422   a field is invalid; `errors` names it
├── Unauthorized     401   no token, or an invalid one
├── Forbidden        403   a valid token without the scope
├── NotFound         404
├── Conflict         409   the resource is not in a state that allows this
├── StaleWrite       412   `If-Match` names an older state
├── TooLarge         413   a request above a limit of size
├── UnknownMedia     415   a body of an unsupported media type
├── TooManyRequests  429   try again after `retry_after`
├── Unavailable      503   try again after `retry_after`
├── GatewayTimeout   504   a deployment did not answer in time
└── StorageFull      507   no disk space for the request
"""

from collections.abc import Mapping
from http import HTTPStatus

from pydantic import BaseModel, ValidationError
from tinyclip.schemas import FieldError, Problem
from tinyclip.validation import INVALID_INPUT, MAX_ERRORS, field_errors, shown_value, summary

PROBLEM_JSON = "application/problem+json"


class ApiError(Exception):
    """Base of every error that becomes a problem document."""

    status: int = 500
    code: str = "internal_error"
    headers: Mapping[str, str] = {}

    def __init__(
        self, detail: str, *, code: str | None = None, errors: list[FieldError] | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.errors = errors or []
        self.retry_after = retry_after

    def problem(self, *, instance: str | None, request_id: str | None) -> Problem:
        return Problem(
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            instance=instance,
            code=self.code,
            request_id=request_id,
            retryable=self.status in (429, 503),
            errors=self.errors,
        )


class InvalidInput(ApiError):
    status, code = 422, INVALID_INPUT

    @classmethod
    def of(cls, errors: list[FieldError], *, code: str | None = None, total: int = 0) -> "InvalidInput":
        """Return an error with the first MAX_ERRORS of these; `total` is the number of all, if the list is not complete."""
        listed = errors[:MAX_ERRORS]
        return cls(summary(listed, max(total, len(errors))), code=code, errors=listed)

    @classmethod
    def document(cls, error: ValidationError, document: object, model: type[BaseModel]) -> "InvalidInput":
        """Return an error with the places of a document that its schema refuses."""
        found = error.errors(include_url=False, include_context=False)
        return cls.of(field_errors(found, document, model), total=len(found))

    @classmethod
    def field(cls, pointer: str, value: object, message: str, *, code: str | None = None) -> "InvalidInput":
        return cls.of([FieldError(pointer=pointer, value=shown_value(value), message=message)], code=code)


class Unauthorized(ApiError):
    status, code = 401, "unauthorized"
    headers = {"WWW-Authenticate": 'Bearer realm="tinyclip"'}


class Forbidden(ApiError):
    status, code = 403, "forbidden"


class NotFound(ApiError):
    status, code = 404, "not_found"


class Conflict(ApiError):
    status, code = 409, "conflict"


class StaleWrite(ApiError):
    status, code = 412, "stale_if_match"


class TooLarge(ApiError):
    status, code = 413, "too_large"


class UnknownMedia(ApiError):
    status, code = 415, "unsupported_media_type"


class TooManyRequests(ApiError):
    status, code = 429, "too_many_requests"


class Unavailable(ApiError):
    status, code = 503, "unavailable"


class GatewayTimeout(ApiError):
    status, code = 504, "timed_out"


class StorageFull(ApiError):
    status, code = 507, "storage_full"
