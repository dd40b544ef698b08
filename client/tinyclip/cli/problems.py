"""Errors on the command line: two lines each (what is wrong, what to do), and an exit code."""

import json
import re
from collections.abc import Iterator

from tinyclip.errors import CannotReachServer, InputError, InvalidRequest, ProblemError, TinyClipError
from tinyclip.schemas import FieldError

FAILED = 1
USAGE = 2
CANCELLED = 3
UNREACHABLE = 4

_LONGEST_VALUE = 80


def exit_code(error: TinyClipError) -> int:
    """Return 2 for errors of the caller, 4 for a server that is away or has an internal error, 1 for others."""
    if isinstance(error, CannotReachServer):
        return UNREACHABLE
    if isinstance(error, ProblemError):
        return UNREACHABLE if error.problem.status >= 500 or error.problem.status == 429 else USAGE
    return USAGE if isinstance(error, InputError) else FAILED


def lines_of(error: TinyClipError) -> list[str]:
    """Return two lines, or two per field if several are invalid."""
    if isinstance(error, InvalidRequest) and error.problem.errors:
        return list(_field_lines(error.problem.errors))
    if isinstance(error, CannotReachServer):
        what, hint = str(error), "start one with `tinyclip-server up`, or name another with --url or TINYCLIP_URL"
    elif isinstance(error, InputError):
        what, hint = error.what, error.hint
    else:
        text = (error.problem.detail or error.problem.title) if isinstance(error, ProblemError) else str(error)
        what, _, hint = text.partition("; ")
        hint = hint or (_reference(error) if isinstance(error, ProblemError) else "run with --help for the options")
    return [f"error: {what}", f"  {hint}"]


def _field_lines(errors: list[FieldError]) -> Iterator[str]:
    for error in errors:
        yield f"error: {_field(error)}"
        yield f"  {error.message}"


def _field(error: FieldError) -> str:
    """Return a field as `--set` names it, and its value."""
    path = re.sub(r"~([01])", lambda escape: "~/"[int(escape[1])], error.pointer.lstrip("/").replace("/", "."))
    if error.value is None:
        return path or "the request"
    value = json.dumps(error.value, ensure_ascii=False)
    shown = value if len(value) <= _LONGEST_VALUE else value[: _LONGEST_VALUE - 1] + "…"
    return f"{path or 'the request'} = {shown}"


def _reference(error: ProblemError) -> str:
    request = f", request {error.problem.request_id}" if error.problem.request_id else ""
    return f"the server answered {error.problem.status} {error.problem.code}{request}"
