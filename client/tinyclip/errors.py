"""The errors of the SDK.

TinyClipError
├── ProblemError            an unsuccessful response of the API
│   ├── InvalidRequest      422
│   ├── NotFound            404
│   ├── Conflict            409, 412
│   ├── Unauthorized        401, 403
│   └── Unavailable         429, 503
├── CannotReachServer       no response
├── InputError              an invalid file or value on the caller's side
├── DigestMismatch          a downloaded file is not the one announced
├── WaitTimeout             a wait that has reached its timeout
└── MissingExtra            an optional part that is not installed
"""

from tinyclip.schemas.problems import Problem


class TinyClipError(Exception):
    """Base of all errors of the SDK."""


class CannotReachServer(TinyClipError):
    """A server that did not respond."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"cannot reach {url}: {reason}")
        self.url = url


class InputError(TinyClipError):
    """An invalid file or value: `what` names it, `hint` is what to change."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(f"{what}: {hint}")
        self.what = what
        self.hint = hint


class DigestMismatch(TinyClipError):
    """A downloaded file that is not the one announced; nothing was written to the destination."""


class WaitTimeout(TinyClipError):
    """A wait that has reached its timeout; the work itself continues."""


class MissingExtra(TinyClipError, ImportError):
    """An optional part that is not installed; the message has the command that installs it."""

    def __init__(self, extra: str, missing: str) -> None:
        super().__init__(f"this needs {missing}, which is not installed: pip install 'tinyclip[{extra}]'")


class ProblemError(TinyClipError):
    """An unsuccessful response, with its problem document."""

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        super().__init__(problem.detail or problem.title)
        self.problem = problem
        self.retry_after = retry_after
        """Seconds to wait before the next attempt, as requested by the server."""


class InvalidRequest(ProblemError):
    """422: a field is invalid; `problem.errors` names it."""


class NotFound(ProblemError):
    """404."""


class Conflict(ProblemError):
    """409 or 412: the state of the resource does not allow this."""


class Unauthorized(ProblemError):
    """401 or 403."""


class Unavailable(ProblemError):
    """429 or 503: try again later."""


def error_for(problem: Problem, retry_after: float | None = None) -> ProblemError:
    """Return the error of a problem, in the class of its status."""
    kinds: dict[int, type[ProblemError]] = {
        401: Unauthorized, 403: Unauthorized, 404: NotFound, 409: Conflict, 412: Conflict,
        422: InvalidRequest, 429: Unavailable, 503: Unavailable,
    }
    return kinds.get(problem.status, ProblemError)(problem, retry_after)
