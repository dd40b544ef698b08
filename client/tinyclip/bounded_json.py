"""JSON from clients, parsed at a bounded cost: what is counted is counted before anything of it is built.

The numbers are those of a large real request many times over: ImageNet-21k has 21,841 class names. Small documents are handled on
the event loop, large ones in one thread of the process, in which no single call holds the interpreter for 100 ms.
"""

import asyncio
import codecs
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic_core import from_json

T = TypeVar("T")

MAX_DEPTH = 64
"""Levels of a document. A job's spec has seven."""
MAX_KEYS = 1000
"""Keys of one object."""
MAX_KEY_CHARACTERS = 1000
MAX_CONTAINERS = 100_000
"""Objects and lists; each takes far more memory than its two characters."""
INLINE_BYTES = 32 << 10
"""Size up to which a document is handled on the event loop: a thread takes longer to start than it does."""
UNSTORABLE_TEXT = "the request contains text that cannot be stored: a NUL character or an unpaired surrogate"

_LONG_NUMBER = 128
"""Digits of a number in a large document; converting a number takes time that grows with the square of its digits."""
_EXACT_BYTES = 1 << 20
"""Size from which documents are searched for long numbers; in a smaller one they cost little."""

_SPACE = rb"[ \t\n\r]{0,100}+"
_LIST_START = re.compile(rb'%s\{%s"(\w{1,100})"%s:%s\[%s(?=\{)' % ((_SPACE,) * 5))
_NEXT_OBJECT = re.compile(rb"\}(%s,%s)(?=\{)" % ((_SPACE,) * 2))
_LIST_END = re.compile(rb"(?<=\})%s\]%s\}%s\Z" % ((_SPACE,) * 3))
"""The start of a list of objects, what separates them, and its end. The space is limited, so that no search takes long."""

_threads = ThreadPoolExecutor(1, "json")


class MalformedJson(ValueError):
    """A body that is not JSON in UTF-8."""


class UnstorableText(ValueError):
    """A document with text that is not Unicode, or has a NUL character."""


class TooComplex(ValueError):
    """A document with more of something than is accepted; the message has both numbers."""


@dataclass(frozen=True)
class Limits:
    """Numbers of what one document may contain."""

    values: int = 300_000
    """Entries of all lists and objects; counted by commas, so those of texts count too."""
    keys: int = 20_000
    """Keys of all objects."""
    colons: int = 100_000
    """Colons, which also occur in texts: keys are counted before they are parsed."""


def parse(body: bytes, limits: Limits = Limits(), *, allow_nul: bool = False) -> Any:
    """Return a JSON document. Raises MalformedJson, UnstorableText, TooComplex."""
    _check_counts(body, limits)
    try:
        document = _from_json(body.removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        raise _refusal(body, str(error)) from error
    _check_structure(document, limits)
    if not allow_nul and b"\\u0000" in body and any("\0" in text for text in _texts(document)):
        raise UnstorableText(UNSTORABLE_TEXT)
    return document


async def off_the_loop(size: int, call: Callable[[], T]) -> T:
    """Return the result of work on `size` bytes, done in the thread for large documents if there are many of them."""
    if size <= INLINE_BYTES:
        return call()
    return await asyncio.get_running_loop().run_in_executor(_threads, call)


def _check_counts(body: bytes, limits: Limits) -> None:
    """Raise TooComplex for a body whose mere parsing would cost much; the counts include characters of texts."""
    values, keys, containers = body.count(b","), body.count(b":"), body.count(b"{") + body.count(b"[")
    if keys > limits.colons:
        raise TooComplex(f"the body has about {keys:,} keys, more than {limits.keys:,}")
    if values > limits.values:
        raise TooComplex(f"the body has about {values:,} values, more than {limits.values:,}; put large lists into files")
    if containers > MAX_CONTAINERS:
        raise TooComplex(f"the body has about {containers:,} lists and objects, more than {MAX_CONTAINERS:,}")
    if len(body) > _EXACT_BYTES and any(
        body[start : start + _LONG_NUMBER].isdigit() for start in range(0, len(body), _LONG_NUMBER)
    ):
        raise TooComplex(f"the body has a number of more than {_LONG_NUMBER} digits; write it as 1.5e300")


def _from_json(body: bytes) -> Any:
    """Return a document; a large list of objects is parsed an object at a time: one call for it would hold the interpreter."""
    if len(body) > _EXACT_BYTES and (start := _LIST_START.match(body)) and (end := _LIST_END.search(body, len(body) - 100)):
        objects = _objects(body, start.end(), end.start())
        if objects is not None:
            return {start[1].decode(): objects}
    return from_json(body, cache_strings="none")


def _objects(body: bytes, start: int, end: int) -> list[Any] | None:
    """Return the objects that are separated by commas in a part of a body, or None if they are not found.

    An object that is cut off is no JSON, so each part that can be parsed is an object of the list. Together, parts that cannot be
    parsed may be as long as the body.
    """
    objects, failed = [], 0
    for place, following in _boundaries(body, start, end):
        try:
            objects.append(from_json(body[start:place], cache_strings="none"))
            start = following
        except ValueError:
            failed += place - start
            if failed > len(body):
                return None
    return objects if start == end else None


def _boundaries(body: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where an object seems to end, and where the next one begins; the last one ends at `end`."""
    for found in _NEXT_OBJECT.finditer(body, start, end):
        yield found.start(1), found.end()
    yield end, end


def _refusal(body: bytes, reason: str) -> ValueError:
    if "recursion limit" in reason:
        return TooComplex(f"the body is nested deeper than {MAX_DEPTH} levels")
    if "hex escape" in reason or ("unicode code point" in reason and _has_surrogates(body)):
        return UnstorableText(UNSTORABLE_TEXT)
    return MalformedJson(f"the body is not JSON in UTF-8: {reason}")


def _has_surrogates(body: bytes) -> bool:
    try:
        body.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _check_structure(document: Any, limits: Limits) -> None:
    """Raise TooComplex for a document that is too deep or has too many or too long keys."""
    level, keys = [document] if isinstance(document, dict | list) else [], 0
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for holder in level:
            if isinstance(holder, dict):
                keys += _checked_keys(holder)
            below += [value for value in (holder.values() if isinstance(holder, dict) else holder) if type(value) in (dict, list)]
        if keys > limits.keys:
            raise TooComplex(f"the body has {keys:,} or more keys, more than {limits.keys:,}")
        if not below:
            return
        level = below
    raise TooComplex(f"the body is nested deeper than {MAX_DEPTH} levels")


def _checked_keys(holder: dict[str, Any]) -> int:
    if len(holder) > MAX_KEYS:
        raise TooComplex(f"an object of the body has {len(holder):,} keys, more than {MAX_KEYS:,}")
    for key in holder:
        if len(key) > MAX_KEY_CHARACTERS:
            raise TooComplex(f"the key {key[:50]}… has {len(key):,} characters, more than {MAX_KEY_CHARACTERS:,}")
    return len(holder)


def _texts(document: Any) -> Iterator[str]:
    """Yield all texts of a document, keys included."""
    rest = [document]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from value
            rest += value.values()
        elif isinstance(value, list):
            rest += value
