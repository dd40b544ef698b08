"""TinyCLIP's SDK. `Client` and `AsyncClient` talk to a server; `tinyclip.schemas` has what they say to each other."""

from tinyclip._client import AsyncClient, Client
from tinyclip._images import Picture
from tinyclip._queries import AsyncStudent, EmbeddedImages, Student
from tinyclip._retry import Retries
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
    "CannotReachServer",
    "Client",
    "Conflict",
    "DigestMismatch",
    "EmbeddedImages",
    "InputError",
    "InvalidRequest",
    "MissingExtra",
    "NotFound",
    "Picture",
    "ProblemError",
    "Retries",
    "Student",
    "TinyClipError",
    "Unauthorized",
    "Unavailable",
    "WaitTimeout",
    "__version__",
]
