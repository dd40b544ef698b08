"""TinyCLIP's SDK: `Client` and `AsyncClient` for a server's API, whose documents are in `tinyclip.schemas`."""

from tinyclip._client import AsyncClient, Client
from tinyclip._http.calls import Call
from tinyclip._http.retries import Retries
from tinyclip._resources.images import ImageLike
from tinyclip._resources.student import AsyncStudent, EmbeddedImages, Student
from tinyclip.errors import (
    CannotReachServer,
    Conflict,
    DigestMismatch,
    InputError,
    InvalidRequest,
    MissingExtra,
    NotFound,
    ProblemError,
    TinyClipError,
    Unauthorized,
    Unavailable,
    WaitTimeout,
)

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "AsyncStudent",
    "Call",
    "CannotReachServer",
    "Client",
    "Conflict",
    "DigestMismatch",
    "EmbeddedImages",
    "ImageLike",
    "InputError",
    "InvalidRequest",
    "MissingExtra",
    "NotFound",
    "ProblemError",
    "Retries",
    "Student",
    "TinyClipError",
    "Unauthorized",
    "Unavailable",
    "WaitTimeout",
    "__version__",
]
