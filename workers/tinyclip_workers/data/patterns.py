"""The shards that a pattern names: brace lists and globs, counted before they are expanded."""

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import braceexpand
from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFileSystem
from fsspec.implementations.local import LocalFileSystem
from tinyclip.addresses import resolver, service_problem
from tinyclip.globs import MAGIC, match_paths

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.runtime.addresses import AddressRefused, address_rules, expect_address
from tinyclip_workers.runtime.filesystems import open_filesystem
from tinyclip_workers.runtime.user_files import store_errors

MAX_SHARDS = 500_000
"""Limit of the shards of one field. The largest public set of pairs, LAION-2B, has 231,349."""
MAX_ADDRESS_BYTES = 24 << 20
"""Limit of the length of all addresses of one field together: 500,000 of 50 characters, or 100,000 of 250."""
MAX_LISTED = 2_000_000
"""Limit of the files and folders that the globs of one field look at."""
MAX_PATTERN, MAX_DEPTH = 1 << 16, 2
"""Limits of the characters and nested braces of one pattern; each level of braces holds all choices in memory."""

_NUMBERS = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?")
_LETTERS = re.compile(r"([A-Za-z])\.\.([A-Za-z])(?:\.\.-?(\d+))?")
_HTTP_MAGIC = re.compile(r"[*\[]")
"""A question mark in a URL begins its query."""


def expand_shards(patterns: str | Sequence[str], field: str = "data.train.shards") -> list[str]:
    """Expand brace lists and globs over local paths, s3:// and http(s):// to a list of addresses in a fixed order.

    A glob without matches adds nothing. A plain path is added even if it does not exist: reading it fails.
    `field`: of the spec, for errors. Raises DataError for too many shards, OSError or ValueError if a store cannot be listed.
    """
    given = [patterns] if isinstance(patterns, str) else patterns
    try:
        return _expand(given)
    except _TooMany as error:
        raise DataError(f"{field} {error}", field=field, value=given[0][:200]) from error


class _TooMany(OSError):
    """Patterns that are refused; the message has the reason and the remedy. An OSError: `store_errors` lets it pass."""


def _expand(patterns: Sequence[str]) -> list[str]:
    """Raises _TooMany, OSError, ValueError."""
    counts = [_count(pattern) for pattern in patterns]
    _expect_few(sum(counts), sum(count * len(pattern) for count, pattern in zip(counts, patterns, strict=True)))
    found: list[str] = []
    budget = _Budget()
    for pattern in patterns:
        for url in braceexpand.braceexpand(pattern):
            found += _glob(url, budget) if MAGIC.search(url) else [url]
            if len(found) > MAX_SHARDS:
                break
    _expect_few(len(found), sum(map(len, found)))
    return found


def _expect_few(count: int, characters: int) -> None:
    if count > MAX_SHARDS:
        many = f"{count:,}" if count < 10**12 else "far too many"
        raise _TooMany(f"names {many} shards, at most {MAX_SHARDS:,} are read; make larger shards")
    if characters > MAX_ADDRESS_BYTES:
        message = f"names {count:,} shards whose addresses have {characters:,} characters"
        raise _TooMany(f"{message}, at most {MAX_ADDRESS_BYTES:,} are read; make larger shards or shorten their names")


def _count(pattern: str, depth: int = 0) -> int:
    """Return the number of addresses that `braceexpand` makes of a pattern, without expanding it. Raises _TooMany."""
    if len(pattern) > MAX_PATTERN:
        raise _TooMany(f"has a pattern of {len(pattern):,} characters, at most {MAX_PATTERN:,} are read; give a list of patterns")
    if depth > MAX_DEPTH:
        raise _TooMany(f"has braces nested deeper than {MAX_DEPTH}; give a list of patterns")
    total, level, start = 1, 0, 0
    for at, character in _unescaped(pattern):
        if character == "{":
            start = at + 1 if level == 0 else start
            level += 1
        elif character == "}":
            level -= 1
            if level == 0:
                total *= _count_choices(pattern[start:at], depth + 1)
    return total


def _count_choices(inside: str, depth: int) -> int:
    """Return the number of texts that replace `{inside}`: of a range, of a list, or of braces inside other text."""
    if numbers := _NUMBERS.fullmatch(inside):
        return abs(int(numbers[1]) - int(numbers[2])) // (int(numbers[3] or 1) or 1) + 1
    if letters := _LETTERS.fullmatch(inside):
        first, last = (braceexpand.alphabet.index(letter) for letter in letters.group(1, 2))
        return int(abs(first - last) // (int(letters[3] or 1) or 1) + 1)
    level, start, total = 0, 0, 0
    for at, character in _unescaped(inside):
        level += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and level == 0:
            total += _count(inside[start:at], depth)
            start = at + 1
    return total + _count(inside[start:], depth)


def _unescaped(text: str) -> Iterator[tuple[int, str]]:
    """Yield the braces and commas, with their positions, that no backslash precedes."""
    return ((match.start(), match[0]) for match in re.finditer(r"\\.|[{},]", text, re.DOTALL) if match[0][0] != "\\")


class _Budget:
    """The number of entries that globs may still look at, and of matches that they may still find."""

    def __init__(self) -> None:
        self._entries, self._matches = MAX_LISTED, MAX_SHARDS

    def look(self) -> None:
        self._entries -= 1
        if self._entries < 0:
            raise _TooMany(f"has globs over more than {MAX_LISTED:,} files and folders; name the folders of the shards")

    def match(self, path: str) -> str:
        self._matches -= 1
        if self._matches < 0:
            raise _TooMany(f"has globs that match more than {MAX_SHARDS:,} files; make larger shards")
        return path


def _glob(url: str, budget: _Budget) -> list[str]:
    """Return the addresses that a pattern matches. Raises AddressRefused if it matches any of the service's own files."""
    if "://" in url:
        found = _glob_store(url, budget)
    else:
        expect_address(url)
        found = sorted(budget.match(path) for path in match_paths(url, budget.look))
    service, resolve = address_rules().service, resolver()
    if any(service_problem(match, service, resolve) for match in found):
        raise AddressRefused(f"{url} matches files of the service itself; name another folder")
    return found


def _glob_store(url: str, budget: _Budget) -> list[str]:
    fs, path = open_filesystem(url)
    if isinstance(fs, LocalFileSystem):
        return sorted(f"file://{budget.match(match)}" for match in match_paths(path, budget.look))
    magic = _HTTP_MAGIC if isinstance(fs, HTTPFileSystem) else MAGIC
    with store_errors(url):
        first = magic.search(path)
        if first is None:
            return [url] if fs.exists(path) else []
        start = path.rfind("/", 0, first.start())
        found = {budget.match(path) for path in _match_remote(fs, path[: max(0, start)], path[start + 1 :].split("/"), budget)}
        return sorted(fs.unstrip_protocol(path) for path in found)


def _match_remote(fs: Any, folder: str, parts: list[str], budget: _Budget) -> Iterator[str]:
    """Yield the matches below a folder of a store; `**` matches any number of folders."""
    part, *rest = parts
    if not MAGIC.search(part):
        path = f"{folder}/{part}"
        if rest:
            yield from _match_remote(fs, path, rest, budget)
        elif fs.exists(path):
            yield path
        return
    if part == "**" and rest:
        yield from _match_remote(fs, folder, rest, budget)
    for path, is_folder in _entries(fs, folder, budget):
        if part == "**":
            if not rest:
                yield path
            if is_folder:
                yield from _match_remote(fs, path, parts, budget)
        elif fnmatchcase(path.rsplit("/", 1)[-1], part):
            if not rest:
                yield path
            elif is_folder:
                yield from _match_remote(fs, path, rest, budget)


def _entries(fs: Any, folder: str, budget: _Budget) -> list[tuple[str, bool]]:
    """Return path and kind of each entry of a folder; none if there is no such folder."""
    found: list[tuple[str, bool]] = []

    def add(info: dict[str, Any]) -> None:
        budget.look()
        path = str(info["name"]).rstrip("/")
        if path != folder:  # an object that stands for the folder
            found.append((path, info["type"] == "directory"))

    async def add_pages(bucket: str, prefix: str) -> None:
        async for info in fs._iterdir(bucket, prefix=prefix):
            add(info)

    try:
        if hasattr(fs, "_iterdir"):  # S3: a listing in pages, of which `ls` would keep a kilobyte for each object
            bucket, _, key = folder.partition("/")
            sync(fs.loop, add_pages, bucket, f"{key}/" if key else "")
        else:
            for info in fs.ls(f"{folder}/" if isinstance(fs, HTTPFileSystem) else folder, detail=True):
                add(info)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return found
