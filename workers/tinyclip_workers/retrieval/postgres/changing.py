"""Changes the tables of an index: items replaced, added and removed in one transaction, with the state that says so.

Shapes: N rows, E embedding size.
"""

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tinyclip.schemas import IndexKind, RejectedItem

from tinyclip_workers.retrieval.files import Generation, SegmentInfo, commit
from tinyclip_workers.retrieval.merging import Changes, NewItem
from tinyclip_workers.retrieval.postgres import graph as graphs
from tinyclip_workers.retrieval.postgres.database import connected
from tinyclip_workers.retrieval.postgres.searching import compare_all
from tinyclip_workers.retrieval.postgres.table import Table, read_state, table_id, write_state
from tinyclip_workers.runtime.store import Store

SAMPLE = 50
"""New items that the search's width is found with: each is compared with all others."""
FEWEST = 1000
"""Items below which any width finds all."""
GROWTH = 2
"""How much larger an index is than when the width was found before it is found again."""


class Moved(Exception):
    """The tables are at another generation than was thought: somebody else changes them."""


def caught_up(store: Store, generation: Generation) -> Generation:
    """What the tables hold, which a job that was killed may not have come to write into the store; then it does now.

    Raises ValueError where they are gone or older than the store knows, NoDatabase, DatabaseAway.
    """
    state = held(generation)
    if state.number < generation.number:
        way_out = "the database was put back to an older day; PUT the index again to build it anew"
        raise ValueError(f"index {generation.name} is at generation {generation.number}, its tables at {state.number}: {way_out}")
    if state.number > generation.number:
        commit(store, state)
    return state


def held(generation: Generation) -> Generation:
    """What the tables of a generation hold now. Raises ValueError if they are gone, NoDatabase, DatabaseAway."""
    with connected() as connection:
        return read_state(connection, generation)


def changed(
    current: Generation,
    changes: Changes,
    asked: IndexKind,
    *,
    applied: int,
    rejected: list[RejectedItem],
    still_wanted: Callable[[], Any],
) -> Generation:
    """The tables with the changes in them: searches see them when this returns, and not before.

    Raises Moved, what `still_wanted` raises, NoDatabase, DatabaseAway; then nothing was changed.
    """
    new = {id: item for id, item in changes.items() if item is not None}
    with connected() as connection, connection.transaction():
        state = read_state(connection, current, lock=True)
        if (state.number, state.nonce) != (current.number, current.nonce):
            raise Moved(f"the tables of index {current.name} are at generation {state.number}, not {current.number}")
        table = Table(connection, table_id(current), current.embed_dim)
        count = current.count - table.remove(list(changes)) + len(new)
        info = current.segments[0].model_copy(update={"count": count})
        if info.kind == "exact" and graphs.needs_graph(asked, count, current.embed_dim):
            graphs.link(table)
            info = info.model_copy(update={"kind": "hnsw", "ef": graphs.WIDTHS[0]})
        info = _added(table, info, new)
        still_wanted()
        generation = current.model_copy(
            update={
                "number": current.number + 1, "nonce": uuid.uuid4().hex, "count": count, "kind": info.kind, "segments": [info],
                "applied": applied, "rejected": rejected,
            }
        )  # fmt: skip
        write_state(connection, generation)
    return generation


def _added(table: Table, info: SegmentInfo, new: Mapping[str, NewItem]) -> SegmentInfo:
    """With the search's width found again if the index has outgrown it: by new items that are not linked yet."""
    if not new:
        return info
    vectors_NE = np.stack([item.vector_E for item in new.values()])
    items = [(id, item.metadata) for id, item in new.items()]
    first = table.next_row()
    rows = list(range(first, first + len(items)))
    outgrown = info.kind == "hnsw" and info.count >= max(FEWEST, GROWTH * info.measured)
    at_once = len(items) - min(SAMPLE, len(items) // 2) if outgrown else len(items)
    table.add(vectors_NE[:at_once], items[:at_once], rows[:at_once])
    if at_once < len(items):
        held_QE = vectors_NE[at_once:]
        truth = [[found.row for found in compare_all(table.connection, table.name, query_E, 10)] for query_E in held_QE]
        ef, recall = graphs.find_width(table, [held_QE], [np.array(truth, np.int64)])
        info = info.model_copy(update={"ef": ef, "recall": recall, "measured": info.count})
        table.add(held_QE, items[at_once:], rows[at_once:])
    return info
