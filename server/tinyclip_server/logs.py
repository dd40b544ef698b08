"""Logging of the control plane: readable lines at a terminal, else JSON lines, both with the request's and job's id.

Modules use the standard library's loggers; structlog renders their records with the values bound to the context.
"""

import contextlib
import logging
import logging.handlers
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import structlog
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError
from structlog.types import EventDict, Processor, WrappedLogger

from tinyclip_server.settings import Settings

Style = Literal["human", "json"]

HIDDEN = "[hidden]"
LOOKS_SECRET = re.compile(
    r"""(?ix)
    (?<= ://) [^\s:/@]* : [^\s@]+ (?= @)                          # a user's password in a URL
    | (?<= bearer\s) [\w.~+/=-]{8,}                               # a token in a header
    | (?<= [?&]) (?: x-amz-signature | x-amz-credential | x-amz-security-token | signature | token ) = [^&\s"']+   # a signed URL
    """
)
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
SECRET_VARIABLES = re.compile(r"TOKEN|SECRET|PASSWORD|ACCESS_KEY_ID|API_KEY|CREDENTIAL", re.IGNORECASE)
SHORTEST_SECRET = 6
"""Characters; hiding shorter values would hide parts of ordinary words."""


class Formatter(structlog.stdlib.ProcessorFormatter):
    """A formatter that renders a record as one line (readable tracebacks take more) and hides secrets."""

    def __init__(self, style: Style, *, colours: bool = False, secrets: Iterable[str] = ()) -> None:
        shared: list[Processor] = [
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([_escape_controls] if style == "human" else []),  # JSON escapes them itself
        ]
        super().__init__(processors=[self.remove_processors_meta, *_renderers(style, colours)], foreign_pre_chain=shared)
        self._secrets = sorted((one for one in secrets if len(one) >= SHORTEST_SECRET), key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        for secret in self._secrets:
            line = line.replace(secret, HIDDEN)
        return LOOKS_SECRET.sub(HIDDEN, line)


class RotatingFile(logging.handlers.RotatingFileHandler):
    """A rotating file that may exceed its size by one line; the library's handler renders every line twice to avoid that."""

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        return self.stream is not None and os.fstat(self.stream.fileno()).st_size >= self.maxBytes


@contextlib.contextmanager
def logging_to(folder: Path, settings: Settings) -> Iterator[None]:
    """Log everything to a file in `folder`. With an embedded Ray only warnings go to standard error, else everything."""
    folder.mkdir(exist_ok=True)
    automatic: Style = "human" if _is_terminal() else "json"
    style = automatic if settings.log_format == "auto" else settings.log_format
    secrets = known_secrets(settings)
    file = RotatingFile(folder / "server.log", maxBytes=10 << 20, backupCount=3)
    file.setFormatter(Formatter("json" if settings.log_format == "json" else "human", secrets=secrets))
    terminal = logging.StreamHandler()
    terminal.setFormatter(Formatter(style, colours=_is_terminal(), secrets=secrets))
    terminal.setLevel(logging.WARNING if settings.embedded else logging.INFO)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    for library in ("httpx", "botocore", "aiobotocore", "alembic.runtime.migration"):
        logging.getLogger(library).setLevel(logging.WARNING)
    for handler in (file, terminal):
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in (file, terminal):
            root.removeHandler(handler)
            handler.close()


def known_secrets(settings: Settings) -> set[str]:
    """Return the secrets in the environment, in database URLs and in token files, which must not be logged."""
    found = {value for name, value in os.environ.items() if SECRET_VARIABLES.search(name) and "PATH" not in name.upper()}
    for url in filter(None, (settings.async_database_url, settings.index_database_url)):
        with contextlib.suppress(ArgumentError):  # the database reports an invalid URL
            if password := make_url(url).password:
                found.add(str(password))
    token_path = settings.ray_token_path or os.environ.get("RAY_AUTH_TOKEN_PATH")
    for path in (token_path, settings.data_dir / "ray-token"):
        if path:
            with contextlib.suppress(OSError):
                found.add(Path(path).read_text().strip())
    return found


def _escape_controls(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Escape line ends and control characters of a message: a path of a request may have them, and would forge log lines."""
    return {**event, "event": CONTROLS.sub(lambda found: ascii(found[0])[1:-1], str(event["event"]))}


def _renderers(style: Style, colours: bool) -> list[Processor]:
    if style == "json":
        processors = structlog.processors
        return [processors.format_exc_info, processors.EventRenamer("message"), processors.JSONRenderer()]
    return [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)]


def _is_terminal() -> bool:
    return sys.stderr.isatty()
