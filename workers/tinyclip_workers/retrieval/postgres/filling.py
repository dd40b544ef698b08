"""Fills the tables of an index from what a build has encoded: copy, link, find the search's width.

Shapes: N rows, Q queries, E embedding size.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from tinyclip.artifacts.documents import IndexRequest

from tinyclip_workers.data.shards import Skipped
from tinyclip_workers.retrieval.files import Generation, SegmentInfo
from tinyclip_workers.retrieval.graph import SAMPLE, Rows
from tinyclip_workers.retrieval.postgres import graph as graphs
from tinyclip_workers.retrieval.postgres.database import connected
from tinyclip_workers.retrieval.postgres.table import Item, Table, new_table, write_state
from tinyclip_workers.runtime.store import Store
from tinyclip_workers.types import Matrix

Part = tuple[Matrix, list[Item]]
"""Vectors (N, E) and their items. Those of a build are read more than once."""
OnProgress = Callable[[int], None]


def expect_database() -> None:
    """Before hours of encoding. Raises NoDatabase, DatabaseAway."""
    with connected():
        pass


def filled_tables(
    store: Store,
    request: IndexRequest,
    parts: Iterable[Part],
    skipped: Skipped,
    *,
    total: int,
    queries: Callable[[], Matrix | None],
    on_progress: OnProgress,
) -> SegmentInfo:
    """Tables with all that the parts hold, which no generation names yet. `total`: how much that is, about.

    `queries`: more of those to come, to find the search's width by.
    """
    with connected() as connection:
        table = new_table(store, connection, request.name, request.embed_dim)
        copied = _copied(table, parts, total, skipped)
        connection.execute(f"CREATE INDEX ON tinyclip_{table.id} USING gin (fields jsonb_path_ops)")
        info = SegmentInfo(id=table.id, count=copied.count, kind="exact")
        if graphs.needs_graph(request.kind, copied.count, request.embed_dim):
            graphs.link_aside(table, lambda share: on_progress(round(share * copied.count)))
            ef, recall = _width(table, copied, parts, queries())
            info = info.model_copy(update={"kind": "hnsw", "ef": ef, "recall": recall, "measured": copied.count})
        if copied.held_rows:
            table.add(np.stack(copied.held_vectors), copied.held_items, copied.held_rows)
        connection.execute(f"ANALYZE tinyclip_{table.id}")
        return info


def publish(generation: Generation) -> None:
    """Write into a new table what it is, before the generation's document names it."""
    with connected() as connection:
        write_state(connection, generation)


@dataclass
class _Copied:
    """What went into a table, and the rows that wait until the graph was tried with them."""

    count: int = 0
    kept: list[Rows] = field(default_factory=list)
    """Of each part: the places of the items that are no second ones of their id."""
    held_vectors: list[Matrix] = field(default_factory=list)
    held_items: list[Item] = field(default_factory=list)
    held_rows: list[int] = field(default_factory=list)


def _copied(table: Table, parts: Iterable[Part], total: int, skipped: Skipped) -> _Copied:
    copied, held = _Copied(), _sample(total)
    held_ids: set[str] = set()
    for vectors_NE, items in parts:
        there = table.with_ids([id for id, _ in items]) | held_ids
        new: dict[str, int] = {}
        for place, (id, _) in enumerate(items):
            if id in new or id in there:
                skipped.sample(id, "another sample has this key already")
            else:
                new[id] = place
        places = np.array(list(new.values()), np.int64)
        rows = copied.count + np.arange(len(places))
        waits = np.isin(rows, held)
        for place, row in zip(places[waits].tolist(), rows[waits].tolist(), strict=True):
            copied.held_vectors.append(vectors_NE[place])
            copied.held_items.append(items[place])
            copied.held_rows.append(row)
            held_ids.add(items[place][0])
        at_once = places[~waits]
        table.add(vectors_NE[at_once], [items[place] for place in at_once.tolist()], rows[~waits].tolist())
        copied.kept.append(places)
        copied.count += len(places)
    return copied


def _sample(total: int) -> Rows:
    return np.random.default_rng(0).choice(total, min(SAMPLE, total // 10), replace=False) if total else np.empty(0, np.int64)


def _width(table: Table, copied: _Copied, parts: Iterable[Part], queries_QE: Matrix | None) -> tuple[int, float | None]:
    linked = copied.count - len(copied.held_rows)
    held_QE = np.stack(copied.held_vectors) if copied.held_vectors else None
    groups = [group for group in (held_QE, queries_QE) if group is not None and len(group)]
    if not linked or not groups:
        return graphs.find_width(table, [], [])
    truth_QK = graphs.best_rows(_linked(copied, parts), np.concatenate(groups), min(10, linked))
    ends = np.cumsum([len(group) for group in groups])[:-1]
    return graphs.find_width(table, groups, np.split(truth_QK, ends))


def _linked(copied: _Copied, parts: Iterable[Part]) -> Iterator[tuple[Matrix, Rows]]:
    """What is in the graph: vectors and their rows."""
    first = 0
    for (vectors_NE, _), places in zip(parts, copied.kept, strict=True):
        rows = first + np.arange(len(places))
        linked = ~np.isin(rows, copied.held_rows)
        yield vectors_NE[places[linked]], rows[linked]
        first += len(places)


