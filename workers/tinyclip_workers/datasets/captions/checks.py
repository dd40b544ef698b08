"""Checks of one caption: whether it is a text at all, markup in it, and whether it was cut or is too long."""

import hashlib
import re
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyclip_workers.model.tokenizers import BoundedTokenizer

DEFAULT_CONTEXT = 77
"""Tokens that CLIP reads, with those for beginning and end."""
AFFIX_WORDS = 3
"""Words at the beginning and at the end of captions that are counted."""
MIN_AFFIX_WORDS = 5
"""In a shorter caption an affix would be most of the text."""
MAX_NO_TEXT = 300
"""Characters of the longest caption that may be no text in words."""

_SPACES = re.compile(r"\s+")
_NUMBER = re.compile(r"(?=\D*\d)[\d\s.,:/+\-#]+")
_FILE = re.compile(
    r"\S+( \S+){0,5}\.(jpe?g|png|gif|webp|bmp|tiff?|svg|heic|txt|json|html?)|(img|dsc[nf]?|image|photo|pic)[_-]?\d{2,}", re.I
)
_WHOLE_URL = re.compile(r"(https?://|www\.)\S+|[\w.-]+\.(com|org|net|de|io)(/\S*)?", re.I)
_IDENTIFIER = re.compile(r"(?=\S*\d)[\w\-.:/]{5,}|[0-9a-f]{8,}", re.I)
_URL = re.compile(r"https?://|\bwww\.\w", re.I)
_HTML = re.compile(r"</?[a-z][a-z0-9]*(\s[^<>]{0,200})?/?>|&(amp|nbsp|quot|lt|gt|apos|#\d{2,5}|#x[0-9a-f]{2,5});", re.I)
_CUT = re.compile(r"(…|\.\.\.|\[\.\.\.\])$")


class NoText(StrEnum):
    """Kinds of captions that are no description in words."""

    NUMBER = "numbers"
    FILE = "file names"
    URL = "addresses"
    IDENTIFIER = "identifiers"


def no_text(caption: str) -> NoText | None:
    """Return what a caption is that is no text in words; None for one that is."""
    if len(caption) > MAX_NO_TEXT:
        return None
    if _NUMBER.fullmatch(caption):
        return NoText.NUMBER
    if _WHOLE_URL.fullmatch(caption):
        return NoText.URL
    if _FILE.fullmatch(caption):
        return NoText.FILE
    return NoText.IDENTIFIER if _IDENTIFIER.fullmatch(caption) else None


def has_url(caption: str) -> bool:
    return _URL.search(caption) is not None


def has_html(caption: str) -> bool:
    return _HTML.search(caption) is not None


def is_cut(caption: str) -> bool:
    """Return True for a caption that ends in an ellipsis, as texts that a web page has shortened."""
    return _CUT.search(caption) is not None


def normalized(caption: str) -> str:
    """Return a caption without differences of case and spaces."""
    return _SPACES.sub(" ", caption).casefold()


def text_hash(normalized: str) -> int:
    """Return 64 bits of a hash."""
    return int.from_bytes(hashlib.blake2b(normalized.encode(), digest_size=8).digest(), "little")


def affixes(normalized: str) -> tuple[str, str] | None:
    """Return the first and the last words of a caption; None for a short one."""
    words = normalized.split(" ")
    if len(words) < MIN_AFFIX_WORDS:
        return None
    return " ".join(words[:AFFIX_WORDS]), " ".join(words[-AFFIX_WORDS:])


def length_check(context_length: int) -> Callable[[str], bool]:
    """Return a function that returns True for captions with more tokens than a model of this context length reads."""
    room = context_length - 2

    def is_too_long(caption: str) -> bool:
        # A token has at least one byte, so most captions need not be tokenized. Cleaning a text can make it longer, but rarely.
        return len(caption.encode()) > room and len(tokenizer_of(context_length).encode(caption)) > room

    return is_too_long


@cache
def tokenizer_of(context_length: int) -> "BoundedTokenizer":
    """Return CLIP's tokenizer for a context length, the same one each time, with the words that it remembers."""
    # Imported here, which takes seconds, because many a shard has no caption that needs it.
    from tinyclip_workers.model.tokenizers import BoundedTokenizer

    return BoundedTokenizer(context_length=context_length)
