"""Globs over local files, with a limit: a pattern of a user may match or look at every file of a machine."""

import os
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

MAGIC = re.compile(r"[*?\[]")


def match_paths(pattern: str, look: Callable[[], None]) -> Iterator[str]:
    """Yield what `glob.glob` returns, unsorted and one at a time, without a list of any folder.

    `look` is called for each file or folder that is looked at; it may raise to end the search.
    """
    folder, parts = ("/", pattern.lstrip("/")) if pattern.startswith("/") else ("", pattern)
    return _match(folder, parts.split("/"), look)


def _match(folder: str, parts: list[str], look: Callable[[], None]) -> Iterator[str]:
    """`folder`: "" or a path; `parts`: patterns below it."""
    plain = next((index for index, part in enumerate(parts) if MAGIC.search(part)), len(parts))
    folder = os.path.join(folder, *parts[:plain])  # at once: a pattern may have thousands of parts
    if plain == len(parts):
        if os.path.lexists(folder):
            yield folder
        return
    part, *rest = parts[plain:]
    try:
        entries = os.scandir(folder or ".")
    except OSError:  # as `glob`: not a folder, or not a readable one
        return
    with entries:
        for entry in entries:
            look()
            hidden = entry.name.startswith(".") and not part.startswith(".")
            if hidden or not fnmatchcase(entry.name, part):
                continue
            path = os.path.join(folder, entry.name)
            if not rest:
                yield path
            elif entry.is_dir():
                yield from _match(path, rest, look)
