"""What a token looks like: `tc_`, 32 random characters, and 6 that check them, so that a typo is told from a revoked token."""

import hashlib
import secrets
import string
import zlib

PREFIX = "tc_"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM_CHARS = 32
"""190 bits: nobody guesses them, so a fast digest without salt is enough to keep them by."""
CHECK_CHARS = 6
HINT_CHARS = len(PREFIX) + 4
"""How much of a token is shown again, to recognise it by."""


def new_token() -> str:
    """A token that nobody has."""
    body = PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARS))
    return body + _check(body)


def is_whole(token: str) -> bool:
    """Whether it has the form of a token and its characters fit its checksum; whether anybody knows it is another question."""
    body, check = token[:-CHECK_CHARS], token[-CHECK_CHARS:]
    formed = len(token) == len(PREFIX) + RANDOM_CHARS + CHECK_CHARS and token.startswith(PREFIX) and token.isascii()
    return formed and check == _check(body)


def digest(token: str) -> str:
    """SHA-256 in hex: all that is ever stored of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def hint(token: str) -> str:
    """The first characters, to recognise a token in a list."""
    return token[:HINT_CHARS] + "…"


def _check(body: str) -> str:
    """CRC-32 in base 62: it notices every single wrong character and every swap of two neighbours."""
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(CHECK_CHARS):
        number, place = divmod(number, len(ALPHABET))
        digits = ALPHABET[place] + digits
    return digits
