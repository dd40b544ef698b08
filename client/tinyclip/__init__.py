"""TinyCLIP's SDK: `Client` and `AsyncClient` for a server's API, whose documents are in `tinyclip.schemas`."""

import importlib
import typing

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

if typing.TYPE_CHECKING:
    from tinyclip._client import AsyncClient, Client
    from tinyclip._http.calls import Call
    from tinyclip._http.retries import Retries
    from tinyclip._resources.images import ImageLike
    from tinyclip._resources.student import AsyncStudent, EmbeddedImages, Student
else:
    # Imported when they are used: server and workers share the schemas and the errors only, and start often.
    _MODULES = {
        **dict.fromkeys(("AsyncClient", "Client"), "tinyclip._client"),
        "Call": "tinyclip._http.calls",
        "Retries": "tinyclip._http.retries",
        "ImageLike": "tinyclip._resources.images",
        **dict.fromkeys(("AsyncStudent", "EmbeddedImages", "Student"), "tinyclip._resources.student"),
    }

    def __getattr__(name: str) -> typing.Any:
        """Import the module of a name."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = getattr(importlib.import_module(_MODULES[name]), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *_MODULES})


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
