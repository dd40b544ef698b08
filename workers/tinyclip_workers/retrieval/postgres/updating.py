"""Change the tables of an index: replace, add and remove items and write the new state, in one transaction.

Shapes: N rows, E embedding size.
"""

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import IndexKind, RejectedItem

from tinyclip_workers.retrieval.commits import commit
from tinyclip_workers.retrieval.generations import Generation, SegmentInfo
from tinyclip_workers.retrieval.merging import Changes, NewItem
from tinyclip_workers.retrieval.postgres import graph as graphs
from tinyclip_workers.retrieval.postgres.database import job_connection
from tinyclip_workers.retrieval.postgres.queries import search_exact
from tinyclip_workers.retrieval.postgres.table import Table, read_state, table_id, write_state

MEASURED_ITEMS = 50
"""New items that recall is measured with: each is compared with all others."""
MEASURE_FROM = 1000
"""Items below which every search width finds all."""
MEASURE_GROWTH = 2
"""Growth of an index since its search width was chosen after which it is chosen again."""


class ConcurrentUpdate(Exception):
    """The tables are at another generation than expected: another process changes them."""


def recover_generation(store: ArtifactsStore, generation: Generation) -> Generation:
    """Return the generation in the tables, and commit it if a job was killed before it could.

    Raises ValueError if the tables no longer exist or are older than the store, DatabaseNotUsable, DatabaseUnavailable.
    """
    state = stored_generation(generation)
    if state.number < generation.number:
        numbers = f"index {generation.name} is at generation {generation.number}, its tables at {state.number}"
        raise ValueError(f"{numbers}: the database was restored to an earlier state; PUT the index again to rebuild it")
    if state.number > generation.number:
        commit(store, state)
    return state


def stored_generation(generation: Generation) -> Generation:
    """Return the generation in the tables of `generation`.

    Raises ValueError if they no longer exist, DatabaseNotUsable, DatabaseUnavailable.
    """
    with job_connection() as connection:
        return read_state(connection, generation)


def apply_changes(
    current: Generation,
    changes: Changes,
    kind: IndexKind,
    *,
    applied: int,
    rejected: list[RejectedItem],
    still_wanted: Callable[[], Any],
) -> Generation:
    """Apply changes to the tables in one transaction and return the new generation.

    Raises ConcurrentUpdate, DatabaseNotUsable, DatabaseUnavailable, or what `still_wanted` raises, and then changes nothing.
    """
    new = {id: item for id, item in changes.items() if item is not None}
    with job_connection() as connection, connection.transaction():
        state = read_state(connection, current, lock=True)
        if (state.number, state.nonce) != (current.number, current.nonce):
            raise ConcurrentUpdate(f"the tables of index {current.name} are at generation {state.number}, not {current.number}")
        table = Table(connection, table_id(current), current.embed_dim)
        count = current.count - table.remove(list(changes)) + len(new)
        info = current.segments[0].model_copy(update={"count": count})
        if info.kind == "exact" and graphs.needs_graph(kind, count, current.embed_dim):
            graphs.create_graph(table)
            info = info.model_copy(update={"kind": "hnsw", "ef": graphs.WIDTHS[0]})
        info = _add_items(table, info, new)
        still_wanted()
        generation = current.model_copy(
            update={
                "number": current.number + 1, "nonce": uuid.uuid4().hex, "count": count, "kind": info.kind, "segments": [info],
                "applied": applied, "rejected": rejected,
            }
        )  # fmt: skip
        write_state(connection, generation)
    return generation


def _add_items(table: Table, info: SegmentInfo, new: Mapping[str, NewItem]) -> SegmentInfo:
    """Add items. If the index has outgrown its search width, choose it again with new items that are not in the graph yet."""
    if not new:
        return info
    vectors_NE = np.stack([item.vector_E for item in new.values()])
    items = [(id, item.metadata) for id, item in new.items()]
    pictures = [item.jpeg for item in new.values()]
    first = table.next_row()
    rows = list(range(first, first + len(items)))
    outgrown = info.kind == "hnsw" and info.count >= max(MEASURE_FROM, MEASURE_GROWTH * info.measured)
    split = len(items) - min(MEASURED_ITEMS, len(items) // 2) if outgrown else len(items)
    table.add(vectors_NE[:split], items[:split], rows[:split], pictures[:split])
    if split < len(items):
        held_out_QE = vectors_NE[split:]
        truth = [[hit.row for hit in search_exact(table.connection, table.name, query_E, 10)] for query_E in held_out_QE]
        ef, recall = graphs.choose_ef(table, [held_out_QE], [np.array(truth, np.int64)])
        info = info.model_copy(update={"ef": ef, "recall": recall, "measured": info.count})
        table.add(held_out_QE, items[split:], rows[split:], pictures[split:])
    return info
