"""One sample of a shard: its fields, and the errors of malformed ones.

A sample is a mapping: `__key__`, `__url__`, one entry of bytes for each file, by extension, and `__defects__`: for each file that
could not be read, by extension, the reason.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Sample = dict[str, Any]

MAX_TEXT_BYTES = 1 << 20
"""Limit of the texts and the JSON document of a sample: a parsed document takes many times its size."""
MAX_TEXT_CHARACTERS = 4096
"""Of a longer text only the beginning is used. Models read 77 tokens, and tokenizers take quadratic time on a long word."""
MAX_NESTING = 100
"""Limit of the nesting of JSON that is stored."""
MAX_MESSAGE = 500
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class UnusableSample(ValueError):
    """A sample that cannot be used; the message has the reason."""


@contextmanager
def sample_errors() -> Iterator[None]:
    """Convert every exception that the content of a sample raises to UnusableSample, except MemoryError.

    Arbitrary bytes make parsers, decoders and tokenizers raise every kind of exception. Only for work on a sample in memory:
    errors of the store are not the sample's.
    """
    try:
        yield
    except (UnusableSample, MemoryError):
        raise
    except Exception as error:
        raise UnusableSample(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "its text is not UTF-8" if isinstance(error, UnicodeDecodeError) else "its text has a lone surrogate"
    if isinstance(error, RecursionError):
        return "its JSON is nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"its JSON is not valid: {error}"
    return str(error.args[0]) if error.args and isinstance(error, KeyError | ValueError) else f"{type(error).__name__}: {error}"


def printable(text: str, limit: int = MAX_MESSAGE) -> str:
    """Return a text for messages: shortened, and with escapes for what names of files can contain and no message may.

    That is lone surrogates, NUL, which PostgreSQL does not store, and other control characters, which steer terminals.
    """
    shortened = text if len(text) <= limit else f"{text[:limit]}…"
    escaped = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", shortened)
    return escaped.encode("utf-8", "backslashreplace").decode()


def field_of(sample: Sample, key: str) -> Any:
    """Return a field by its spec name: `txt` or `cls` (a file of the sample, as text) or `json.FIELD`. Raises any exception."""
    if not key.startswith("json."):
        return small_file(sample, key).decode("utf-8")
    document: Any = sample_json(sample)
    for part in key.split(".")[1:]:
        if not isinstance(document, dict) or part not in document:
            raise UnusableSample(f"it has no {key}")
        document = document[part]
    return document


def text_field(sample: Sample, key: str) -> str:
    """Return a field that is a text, a number or a boolean, as stripped text. Raises any exception."""
    value = field_of(sample, key)
    if not isinstance(value, str | int | float):
        raise UnusableSample(f"its {key} is {_kind(value)}, not a text or a number")
    text = str(value).strip()
    text.encode()  # raises UnicodeEncodeError: JSON can contain lone surrogates
    return text


def sample_json(sample: Sample, **parsers: Any) -> dict[str, Any]:
    """Return the sample's JSON document, or {} if it has none. `parsers`: as `json.loads`. Raises any exception."""
    if "json" not in sample and "json" not in sample.get("__defects__", ()):
        return {}
    document = json.loads(small_file(sample, "json"), **parsers)
    if not isinstance(document, dict):
        raise UnusableSample("its JSON is not an object")
    return document


def storable_json(sample: Sample) -> dict[str, Any]:
    """Return the sample's JSON document for storage: NaN and infinite numbers, which JSON does not have, are None.

    Raises any exception, also for a document that is nested so deeply that writing it may fail.
    """
    document = sample_json(sample, parse_constant=lambda name: None, parse_float=_finite)
    level: list[Any] = [document]
    for _ in range(MAX_NESTING):
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
        level = [value for value in level if isinstance(value, dict | list)]
        if not level:
            return document
    raise UnusableSample(f"its JSON is nested deeper than {MAX_NESTING}")


def image_bytes(sample: Sample, image_keys: Sequence[str]) -> bytes:
    """Return the sample's encoded image, by the first of the extensions that it has. Raises KeyError if it has none."""
    for key in image_keys:
        if key in sample:
            data: bytes = sample[key]
            return data
    defects = "".join(f"; {key}: {reason}" for key, reason in sample.get("__defects__", {}).items())
    raise KeyError(f"no image under {', '.join(image_keys)}; it has {extensions(sample)}{defects}")


def captions_of(sample: Sample, caption_key: str, *, by_line: bool = False) -> list[str]:
    """Return all captions of a sample, stripped, of all languages; `by_line`: one on each line.

    Raises any exception, also if there is none.
    """
    value = field_of(sample, caption_key)
    if not isinstance(value, dict):
        return _captions_in(value, caption_key, by_line=by_line)
    return [caption for texts in captions_by_language(sample, caption_key, "").values() for caption in texts]


def captions_by_language(sample: Sample, caption_key: str, default: str, *, by_line: bool = False) -> dict[str, list[str]]:
    """Return the captions of a sample by their languages; those without one are of the `default`. Raises as `captions_of`."""
    value = field_of(sample, caption_key)
    if not isinstance(value, dict):
        return {default: _captions_in(value, caption_key, by_line=by_line)}
    texts = {language: each for language, each in value.items() if each is not None and each != []}
    if not texts:
        raise UnusableSample(f"its captions under {caption_key} are empty")
    return {language: _captions_in(each, f"{caption_key}.{language}", by_line=by_line) for language, each in texts.items()}


def _captions_in(value: Any, caption_key: str, *, by_line: bool) -> list[str]:
    values = value if isinstance(value, list) else [value]
    texts = [text for text in values if isinstance(text, str)]
    if values and not texts:
        raise UnusableSample(f"its caption under {caption_key} is {_kind(values[0])}, not text")
    lines = [line for text in texts for line in text.splitlines()] if by_line else texts
    captions = [caption for line in lines if (caption := line[:MAX_TEXT_CHARACTERS].strip())]
    if not captions:
        raise UnusableSample(f"its caption under {caption_key} is empty")
    for caption in captions:
        caption.encode()  # as in `text_field`
    return captions


def extensions(sample: Sample) -> str:
    """Return the extensions of a sample's files, for messages."""
    return ", ".join(sorted(key for key in sample if not key.startswith("__"))) or "nothing"


def is_held_out(key: str, fraction: float) -> bool:
    """Return True if the sample is held out of training. A hash of its key decides, so every process and job agrees."""
    if fraction <= 0:
        return False
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return int(digest[:8], 16) / 2**32 < fraction


def matches(sample: Sample, where: dict[str, Any]) -> bool:
    """Return True if the sample's JSON has all these values. Raises any exception."""
    document = sample_json(sample) if where else {}
    return all(document.get(key) == value for key, value in where.items())


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


def small_file(sample: Sample, key: str) -> bytes:
    """Return a file of the sample that holds text. Raises UnusableSample if it is missing or has over MAX_TEXT_BYTES."""
    if key not in sample:
        reason = sample.get("__defects__", {}).get(key)
        raise UnusableSample(f"its {key} cannot be read: {reason}" if reason else f"it has no {key}; it has {extensions(sample)}")
    data: bytes = sample[key]
    if len(data) > MAX_TEXT_BYTES:
        raise UnusableSample(f"its {key} has more than the {MAX_TEXT_BYTES:,} bytes that are read")
    return data


def _kind(value: object) -> str:
    kinds = {type(None): "null", bool: "true or false", dict: "an object", list: "a list", int: "a number", float: "a number"}
    return kinds.get(type(value), "a text")
