"""Checks of the shards of a build before its job is submitted: missing ones are refused by field."""

import asyncio
import itertools
import os
import re

from tinyclip.addresses import AddressRules
from tinyclip.globs import MAGIC, match_paths
from tinyclip.schemas import FieldError, IndexSource

from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.problems import InvalidInput

MAX_LOOKED = 10_000
"""Limit of the files and folders that a glob looks at here."""
_BRACES = re.compile(r"\{[^{}]*\}")
_SEPARATOR = re.compile(r"\.\.|,")


class _TooManyFiles(Exception):
    """A glob over more than MAX_LOOKED files and folders."""


async def expect_shards(source: IndexSource, store: AsyncArtifactsStore, rules: AddressRules) -> None:
    """Raise InvalidInput unless the first shard of every pattern exists.

    Only local paths are checked, and only if the artifacts are local too. The Ray job checks all others: the server fetches no
    address that a user gives.
    """
    listed = source.shards if isinstance(source.shards, list) else [source.shards]
    if not listed:
        raise InvalidInput.field("/source/shards", [], "name at least one shard")
    errors = []
    for index, pattern in enumerate(listed):
        problem = await _problem(pattern, store, rules)
        if problem is not None:
            pointer = f"/source/shards/{index}" if isinstance(source.shards, list) else "/source/shards"
            errors.append(FieldError(pointer=pointer, value=pattern, message=problem))
    if errors:
        raise InvalidInput.of(errors)


def first_of(pattern: str) -> str:
    """Return the first path of a brace list; globs are kept."""
    expanded = None
    while pattern != expanded:  # innermost braces first
        expanded, pattern = pattern, _BRACES.sub(lambda found: _first_choice(found[0]), pattern)
    return pattern


def _first_choice(braces: str) -> str:
    """Return the first choice of `{a,b}` or `{0..9}`; braces without a choice unchanged."""
    first, *others = _SEPARATOR.split(braces[1:-1], maxsplit=1)
    return first if others else braces


async def _problem(pattern: str, store: AsyncArtifactsStore, rules: AddressRules) -> str | None:
    if "://" in pattern:
        return None
    if not pattern.startswith("/"):
        return "is a relative path, but the job runs in another folder; give an absolute path or a URL"
    return await asyncio.to_thread(_problem_of_first, pattern, rules) if store.is_local else None


def _problem_of_first(pattern: str, rules: AddressRules) -> str | None:
    path = first_of(pattern)
    if problem := rules.problem(path):  # one that a brace spells
        return problem
    looked = itertools.count(1)

    def look() -> None:
        if next(looked) > MAX_LOOKED:
            raise _TooManyFiles

    try:
        readable = (found for found in match_paths(path, look) if rules.place_problem(found) is None)
        exists = next(readable, None) is not None if MAGIC.search(path) else os.path.isfile(path)  # no error if it is too long
    except _TooManyFiles:
        return None  # the Ray job looks further
    return None if exists else f"{path} does not exist; check the path"
