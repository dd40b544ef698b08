"""Calls to remote stores: limited in time, repeated while the cause may pass, and with one error for whatever a driver raises.

The limits and retries of S3's driver are set here. The drivers of other stores keep their own, and of their errors only timeouts
and errors of the connection are recognised as temporary.
"""

import errno
import logging
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 15.0
"""How long S3 may take until the first byte of a response, and between two pieces of it."""
REQUEST_ATTEMPTS = 3
"""Attempts at one request to S3 after errors of the connection and status 5xx, within a few seconds."""
BODY_ATTEMPTS = 2
"""Attempts after a response that ended too early or did not come in time. They multiply with `REQUEST_ATTEMPTS`."""
CONNECTIONS = 50
"""To S3, of one process: with botocore's 10, as many requests without a response would hold up all others."""
PATIENCE_SECONDS = 300.0
"""How long a call without a limit is repeated: jobs wait for a store that is away for minutes."""
FIRST_WAIT_SECONDS = 1.0
"""Before the first repetition; doubled each time."""
LONGEST_WAIT_SECONDS = 15.0

_TEMPORARY_CODES = {"ConditionalRequestConflict", "NoSuchUpload", "OperationAborted", "RequestTimeout", "SlowDown"}
"""Error codes of S3, besides status 429 and 5xx. NoSuchUpload: an upload in parts was completed, and the response was lost."""
_TEMPORARY_ERRORS = {
    "aiohttp.client_exceptions.ClientError", "botocore.exceptions.ConnectionError", "botocore.exceptions.HTTPClientError",
    "botocore.exceptions.IncompleteReadError", "botocore.parsers.ResponseParserError",
}  # fmt: skip


class StoreUnavailable(OSError):
    """A remote store fails or does not answer in time: the same call may succeed later. A write may have been done or not."""


class Deadline:
    """A moment after which a call begins no request: by the clock that is ahead, since a suspension stops one of the two."""

    def __init__(self, seconds: float) -> None:
        self._steady, self._wall = time.monotonic() + seconds, time.time() + seconds

    def left_s(self) -> float:
        return min(self._steady - time.monotonic(), self._wall - time.time())

    def check(self, address: str) -> None:
        """Raises StoreUnavailable if the moment has passed."""
        if self.left_s() <= 0:
            raise StoreUnavailable(errno.EIO, "the store does not answer in time", address)


def open_filesystem(address: str) -> tuple[Any, str]:
    """Return the filesystem of a path or URI, and the path in it. Listings are not cached: others write there too.

    Raises ValueError naming what to install where the URI's scheme has no driver.
    """
    import fsspec  # comes with the extras

    scheme = address.partition("://")[0] if "://" in address else "file"
    try:
        fs, path = fsspec.core.url_to_fs(address, **_options(scheme, fsspec.config.conf))
    except ImportError as error:
        raise ValueError(f"{address} needs a driver for {scheme}:// ({error}); for s3:// pip install 'tinyclip[s3]'") from error
    if scheme in ("s3", "s3a"):
        fs.retries = BODY_ATTEMPTS
    return fs, str(path)


def call_remote(
    call: Callable[..., Any], address: str, *arguments: Any, deadline: Deadline | None, cut_off: bool = True, **options: Any
) -> Any:
    """Call a method of a remote filesystem, again while its error is temporary, until a deadline or for `PATIENCE_SECONDS`.

    With a deadline and `cut_off` the call itself is cut off too; else only the silence of the store ends it. Raises
    StoreUnavailable naming the address, and other errors as an OSError.
    """
    end, wait = deadline or Deadline(PATIENCE_SECONDS), FIRST_WAIT_SECONDS
    while True:
        end.check(address)
        if deadline is not None and cut_off:
            options["timeout"] = max(0.01, end.left_s())
        try:
            return call(*arguments, **options)
        except Exception as error:  # drivers raise anything
            if not _is_temporary(error):
                raise _as_os_error(error, address) from error
            if wait > end.left_s():
                raise StoreUnavailable(errno.EIO, f"the store does not answer ({_text(error)})", address) from error
            log.warning("%s: %s; trying again in %.0f s", address, _text(error), wait)
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)


def _options(scheme: str, configured: dict[str, Any]) -> dict[str, Any]:
    """Return the driver's options. `configured` is the user's configuration of fsspec, whose botocore settings win."""
    if scheme == "file":
        return {}
    if scheme not in ("s3", "s3a"):
        return {"use_listings_cache": False}
    settings = {
        "connect_timeout": CONNECT_SECONDS, "read_timeout": SILENCE_SECONDS, "max_pool_connections": CONNECTIONS,
        "retries": {"total_max_attempts": REQUEST_ATTEMPTS},
    }  # fmt: skip
    return {"use_listings_cache": False, "config_kwargs": {**settings, **configured.get(scheme, {}).get("config_kwargs", {})}}


def _is_temporary(error: Exception) -> bool:
    response = _response(error)
    if response is not None:
        status, code = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0), response.get("Error", {}).get("Code")
        return status >= 500 or status == 429 or code in _TEMPORARY_CODES
    bases = {f"{base.__module__}.{base.__qualname__}" for base in type(error).__mro__}
    return isinstance(error, TimeoutError | ConnectionError) or not bases.isdisjoint(_TEMPORARY_ERRORS)


def _as_os_error(error: Exception, address: str) -> Exception:
    """Return the error, but one of a driver's own classes as an OSError: callers know these."""
    response = _response(error)
    if response is not None and response.get("Error", {}).get("Code") in ("PreconditionFailed", "412"):
        return FileExistsError(errno.EEXIST, "exists already", address)  # the driver recognises it on AWS only
    if isinstance(error, OSError) or type(error).__module__ == "builtins":
        return error
    return OSError(errno.EIO, _text(error), address)


def _response(error: Exception) -> dict[str, Any] | None:
    """Return S3's error response, or None if there was none."""
    response = getattr(error.__cause__ or error, "response", None)
    return response if isinstance(response, dict) else None


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
