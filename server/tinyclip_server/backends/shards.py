"""Checks of the files of a `source` before its Ray job is submitted: missing ones are refused by field."""

import itertools
import os
import re
from collections.abc import Sequence

from tinyclip.addresses import AddressRules, resolver
from tinyclip.globs import MAGIC, match_paths
from tinyclip.schemas import FieldError

from tinyclip_server.problems import InvalidInput

MAX_LOOKED = 10_000
"""Limit of the files and folders that the globs of a request look at here."""
_BRACES = re.compile(r"\{[^{}]*\}")
_SEPARATOR = re.compile(r"\.\.|,")


class _TooManyFiles(Exception):
    """Globs over more than MAX_LOOKED files and folders."""


def expect_shards(
    shards: str | Sequence[str], rules: AddressRules, *, is_local: bool, captions: str | None = None
) -> None:
    """Raise InvalidInput unless the first shard of every pattern of a source exists, and its file of captions. For a thread.

    Only local paths are checked, and only if the artifacts are local too (`is_local`). The Ray job checks all others: the server
    fetches no address that a user gives.
    """
    listed = [shards] if isinstance(shards, str) else shards
    if not listed:
        raise InvalidInput.field("/source/shards", [], "name at least one shard")
    search = _Search(rules) if is_local else None
    errors = []
    for index, pattern in enumerate(listed):
        problem = _problem(pattern, search)
        if problem is not None:
            pointer = "/source/shards" if isinstance(shards, str) else f"/source/shards/{index}"
            errors.append(FieldError(pointer=pointer, value=pattern, message=problem))
    if captions is not None and (problem := _problem(captions, search)):
        errors.append(FieldError(pointer="/source/captions", value=captions, message=problem))
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


def _problem(pattern: str, search: "_Search | None") -> str | None:
    if "://" in pattern:
        return None
    if not pattern.startswith("/"):
        return "is a relative path, but the job runs in another folder; give an absolute path or a URL"
    return search.problem(pattern) if search is not None else None


class _Search:
    """The search for the first shards of one request."""

    def __init__(self, rules: AddressRules) -> None:
        self._rules, self._resolve = rules, resolver()
        self._looked = itertools.count(1)

    def problem(self, pattern: str) -> str | None:
        path = first_of(pattern)
        if path != pattern and (problem := self._rules.problem(path, self._resolve)):  # one that a brace spells
            return problem
        try:
            exists = self._matches(path) if MAGIC.search(path) else os.path.isfile(path)  # no error if it is too long
        except _TooManyFiles:
            return None  # the Ray job looks further
        return None if exists else f"{path} does not exist; check the path"

    def _matches(self, path: str) -> bool:
        """Return whether a glob matches a file that may be read. Raises _TooManyFiles."""
        found = match_paths(path, self._look)
        return any(self._rules.place_problem(match, self._resolve) is None for match in found)

    def _look(self) -> None:
        if next(self._looked) > MAX_LOOKED:
            raise _TooManyFiles
