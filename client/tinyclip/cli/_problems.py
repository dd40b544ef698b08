"""What went wrong, in two lines: what (field or file, and value) and the way out. And the exit code for it."""

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
    """2 for what the caller can put right, 4 for a server that is away or in trouble, 1 for the rest."""
    if isinstance(error, CannotReachServer):
        return UNREACHABLE
    if isinstance(error, ProblemError):
        return UNREACHABLE if error.problem.status >= 500 or error.problem.status == 429 else USAGE
    return USAGE if isinstance(error, InputError) else FAILED


def lines_of(error: TinyClipError) -> list[str]:
    """Two lines an error; several bad fields have two each."""
    return list(_lines_of(error))


def _lines_of(error: TinyClipError) -> Iterator[str]:
    if isinstance(error, InvalidRequest) and error.problem.errors:
        for field_error in error.problem.errors:
            yield f"error: {_place(field_error)}"
            yield f"  {field_error.message}"
    elif isinstance(error, ProblemError):
        what, _, way_out = (error.problem.detail or error.problem.title).partition("; ")
        yield f"error: {what}"
        yield f"  {way_out or _reference(error)}"
    elif isinstance(error, CannotReachServer):
        yield f"error: {error}"
        yield "  start one with `tinyclip-server up`, or name another with --url or TINYCLIP_URL"
    elif isinstance(error, InputError):
        yield f"error: {error.what}"
        yield f"  {error.way_out}"
    else:
        what, _, way_out = str(error).partition("; ")
        yield f"error: {what}"
        yield f"  {way_out or 'run with --help to see what can be said'}"


def _place(error: FieldError) -> str:
    """A field as `--set` names it, and what was there."""
    place = re.sub(r"~([01])", lambda escape: "~/"[int(escape[1])], error.pointer.lstrip("/").replace("/", "."))
    if error.value is None:
        return place or "the request"
    value = json.dumps(error.value, ensure_ascii=False)
    shown = value if len(value) <= _LONGEST_VALUE else value[: _LONGEST_VALUE - 1] + "…"
    return f"{place or 'the request'} = {shown}"


def _reference(error: ProblemError) -> str:
    request = f", request {error.problem.request_id}" if error.problem.request_id else ""
    return f"the server answered {error.problem.status} {error.problem.code}{request}"
