"""The newest generation of an index, the atomic commit of the next one, and removal of what no generation names any more."""

import logging
import re

from tinyclip.artifacts.paths import index_generation, index_generations, index_segments, index_tables, index_tombstones_folder
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.errors import MissingExtra

from tinyclip_workers.retrieval.generations import Generation

log = logging.getLogger(__name__)


def newest(store: ArtifactsStore, name: str) -> Generation | None:
    """Return the newest generation; None if there is none yet."""
    for _ in range(3):
        numbers = _numbers(store, name)
        if not numbers:
            return None
        try:
            return Generation.model_validate_json(store.read_bytes(index_generation(name, numbers[-1])))
        except FileNotFoundError:  # a newer generation was committed and this one removed after the listing
            continue
    raise OSError(f"{store.uri(index_generations(name))} changes faster than it can be read; try again")


def commit(store: ArtifactsStore, generation: Generation) -> bool:
    """Make a generation the newest and remove older files; return False and change nothing if its number is taken."""
    path = index_generation(generation.name, generation.number)
    if not store.create_bytes(path, generation.model_dump_json(indent=1).encode()):
        return False
    remove_unused_files(store, generation)
    return True


def remove_unused_files(store: ArtifactsStore, generation: Generation) -> None:
    """Remove the files that this generation does not name. No other process may be changing the index."""
    name = generation.name
    segments = {segment.id for segment in generation.segments}
    tombstones = {f"{segment.dead}.npy" for segment in generation.segments if segment.dead}
    for number in _numbers(store, name):
        if number < generation.number:
            store.remove(index_generation(name, number))
    for folder, used in ((index_segments(name), segments), (index_tombstones_folder(name), tombstones)):
        for unused in set(store.list(folder)) - used:
            store.remove(f"{folder}/{unused}")


def remove_unused(store: ArtifactsStore, generation: Generation) -> None:
    """Remove the files and tables that this generation does not name. No other process may be changing the index.

    Tables that cannot be dropped now, for example because no database is configured, are dropped with a later change or with
    the index.
    """
    remove_unused_files(store, generation)
    used = [segment.id for segment in generation.segments] if generation.store == "pgvector" else []
    unused = [id for id in store.list(index_tables(generation.name)) if id not in used]
    if not unused:
        return
    try:
        from tinyclip_workers.retrieval.postgres.table import drop_tables  # an extra

        drop_tables(store, generation.name, unused)
    except (MissingExtra, ValueError, OSError) as error:
        log.warning("cannot drop older tables of index %s now: %s", generation.name, error)


def _numbers(store: ArtifactsStore, name: str) -> list[int]:
    files = store.list(index_generations(name))
    return sorted(int(file.split(".")[0]) for file in files if re.fullmatch(r"\d+\.json", file))
