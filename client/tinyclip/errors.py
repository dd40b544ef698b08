"""Errors a caller can meet, and the one that carries a problem document.

TinyClipError
├── ProblemError            an answer of the API that is not a success
│   ├── InvalidRequest      422
│   ├── NotFound            404
│   ├── Conflict            409, 412
│   ├── Unauthorized        401, 403
│   └── Unavailable         429, 503
├── CannotReachServer       no answer at all
└── MissingExtra            a part of TinyCLIP that is not installed
"""

from tinyclip.schemas.problems import Problem


class TinyClipError(Exception):
    """Base of all of ours."""


class CannotReachServer(TinyClipError):
    """The server did not answer."""


class MissingExtra(TinyClipError):
    """An optional part is not installed; the message has the command that installs it."""

    def __init__(self, extra: str, missing: str) -> None:
        super().__init__(f"this needs {missing}, which is not installed: pip install 'tinyclip[{extra}]'")


class ProblemError(TinyClipError):
    """The server said no and why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title)
        self.problem = problem


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


def error_for(problem: Problem) -> ProblemError:
    """The error class for a problem's status."""
    kinds: dict[int, type[ProblemError]] = {
        401: Unauthorized, 403: Unauthorized, 404: NotFound, 409: Conflict, 412: Conflict,
        422: InvalidRequest, 429: Unavailable, 503: Unavailable,
    }
    return kinds.get(problem.status, ProblemError)(problem)
