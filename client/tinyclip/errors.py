"""Errors a caller can meet, and the one that carries a problem document.

TinyClipError
├── ProblemError            an answer of the API that is not a success
│   ├── InvalidRequest      422
│   ├── NotFound            404
│   ├── Conflict            409, 412
│   ├── Unauthorized        401, 403
│   └── Unavailable         429, 503
├── CannotReachServer       no answer at all
├── InputError              a file or value on the caller's side that cannot be sent as it is
├── DigestMismatch          a downloaded file is not the one that was announced
├── WaitTimeout             what was waited for did not happen in time
└── MissingExtra            a part of TinyCLIP that is not installed
"""

from tinyclip.schemas.problems import Problem


class TinyClipError(Exception):
    """Base of all of ours."""


class CannotReachServer(TinyClipError):
    """The server did not answer."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"cannot reach {url}: {reason}")
        self.url = url


class InputError(TinyClipError):
    """A file or value that cannot be sent as it is: `what` names it, `hint` says what to change."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(f"{what}: {hint}")
        self.what = what
        self.hint = hint


class DigestMismatch(TinyClipError):
    """A downloaded file is not the one that was announced; nothing was put at its place."""


class WaitTimeout(TinyClipError):
    """What was waited for did not happen in time. It goes on; only the waiting ended."""


class MissingExtra(TinyClipError, ImportError):
    """An optional part is not installed; the message has the command that installs it."""

    def __init__(self, extra: str, missing: str) -> None:
        super().__init__(f"this needs {missing}, which is not installed: pip install 'tinyclip[{extra}]'")


class ProblemError(TinyClipError):
    """The server said no and why."""

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        super().__init__(problem.detail or problem.title)
        self.problem = problem
        self.retry_after = retry_after
        """Seconds the server asked us to wait before another try."""


class InvalidRequest(ProblemError):
    """422: a field is wrong; `problem.errors` says which."""


class NotFound(ProblemError):
    """404."""


class Conflict(ProblemError):
    """409 or 412: the thing is not in a state that allows this."""


class Unauthorized(ProblemError):
    """401 or 403."""


class Unavailable(ProblemError):
    """429 or 503: try again later."""


def error_for(problem: Problem, retry_after: float | None = None) -> ProblemError:
    """The error class for a problem's status."""
    kinds: dict[int, type[ProblemError]] = {
        401: Unauthorized, 403: Unauthorized, 404: NotFound, 409: Conflict, 412: Conflict,
        422: InvalidRequest, 429: Unavailable, 503: Unavailable,
    }
    return kinds.get(problem.status, ProblemError)(problem, retry_after)
