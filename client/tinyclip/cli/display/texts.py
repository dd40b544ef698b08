"""Texts of others, such as names, captions and log lines, made safe to print."""

import re

from rich.text import Text

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""Control characters but for tab and newline, marks that reverse the direction of what follows, and lone surrogates."""


def printable(text: str) -> str:
    """Return a text with escapes in place of characters that steer a terminal or reorder what follows."""
    return _CONTROL.sub(lambda found: _escape(ord(found[0])), text)


def one_line(text: str) -> str:
    """Return a printable text on one line."""
    return printable(" ".join(text.split("\n")).replace("\t", " "))


def shortened(text: str, columns: int) -> str:
    """Return a text of at most so many columns of a terminal, with an ellipsis if it was cut."""
    short = Text(text)
    short.truncate(columns, overflow="ellipsis")
    return short.plain


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
