"""The format of tokens: `tc_`, 32 random characters and a checksum of 6, which distinguishes a typo from a revoked token."""

import hashlib
import secrets
import string
import zlib

PREFIX = "tc_"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM_CHARS = 32
"""190 bits: they cannot be guessed, so an unsalted fast digest is enough to store."""
CHECK_CHARS = 6
HINT_CHARS = len(PREFIX) + 4
"""Length of the prefix that identifies a token in lists."""


def new_token() -> str:
    """Return a new random token."""
    body = PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARS))
    return body + _checksum(body)


def is_well_formed(token: str) -> bool:
    """Return whether a text has the format of a token and the right checksum; it may still be unknown."""
    body, check = token[:-CHECK_CHARS], token[-CHECK_CHARS:]
    formed = len(token) == len(PREFIX) + RANDOM_CHARS + CHECK_CHARS and token.startswith(PREFIX) and token.isascii()
    return formed and check == _checksum(body)


def digest(token: str) -> str:
    """Return the SHA-256 of a token in hex; nothing else of it is stored."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def hint(token: str) -> str:
    """Return the first characters of a token, which identify it in a list."""
    return token[:HINT_CHARS] + "…"


def _checksum(body: str) -> str:
    """Return the CRC-32 in base 62, which detects every wrong character and every swap of two neighbours."""
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(CHECK_CHARS):
        number, place = divmod(number, len(ALPHABET))
        digits = ALPHABET[place] + digits
    return digits
