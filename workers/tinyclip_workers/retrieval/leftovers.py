"""Tables in the database of indexes that an index has no more: of an older build, or of one that was killed."""

import logging

from tinyclip.artifacts.paths import index_tables
from tinyclip.errors import MissingExtra

from tinyclip_workers.retrieval.files import Generation, remove_others
from tinyclip_workers.runtime.store import Store

log = logging.getLogger(__name__)


def remove_all_others(store: Store, generation: Generation) -> None:
    """Files and tables that this generation does not name, of an index that nobody else is changing.

    Tables that cannot be dropped now, as where no database is configured, go with a later change or with the index.
    """
    remove_others(store, generation)
    used = [segment.id for segment in generation.segments] if generation.store == "pgvector" else []
    others = [id for id in store.list(index_tables(generation.name)) if id not in used]
    if not others:
        return
    try:
        from tinyclip_workers.retrieval.postgres.table import drop_tables  # an extra

        drop_tables(store, generation.name, others)
    except (MissingExtra, ValueError, OSError) as error:
        log.warning("older tables of index %s stay for now: %s", generation.name, error)
