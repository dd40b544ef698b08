"""Fill the tables of an index with the encoded items of a build: copy the rows, create the graph, choose the search width.

Shapes: N rows, Q queries, E embedding size.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat

import numpy as np
from tinyclip.artifacts.documents import IndexRequest
from tinyclip.artifacts.store import ArtifactsStore

from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.retrieval.generations import Generation, SegmentInfo
from tinyclip_workers.retrieval.pictures import Place
from tinyclip_workers.retrieval.postgres import graph as graphs
from tinyclip_workers.retrieval.postgres.database import job_connection
from tinyclip_workers.retrieval.postgres.table import Item, Table, create_table, write_state
from tinyclip_workers.retrieval.recall import RECALL_QUERIES, Rows, nearest_rows
from tinyclip_workers.types import Matrix

Part = tuple[Matrix, list[Item]]
"""Vectors (N, E) and their items."""
OnProgress = Callable[[int], None]


def expect_database() -> None:
    """Raises DatabaseNotUsable, DatabaseUnavailable."""
    with job_connection():
        pass


def build_tables(
    store: ArtifactsStore,
    request: IndexRequest,
    parts: Iterable[Part],
    skipped: Skipped,
    *,
    places: Iterable[Sequence[Place | None]] = (),
    total: int,
    queries: Callable[[], Matrix | None],
    on_progress: OnProgress,
) -> SegmentInfo:
    """Create tables with the items of all parts; no generation names them yet.

    `parts` are read more than once and hold about `total` items; `places` are those of their images, if they are known;
    `queries` returns further queries to choose the search width with.
    """
    with job_connection() as connection:
        table = create_table(store, connection, request.name, request.embed_dim)
        copied = _copy_parts(table, parts, places, total, skipped)
        connection.execute(f"CREATE INDEX ON tinyclip_{table.id} USING gin (fields jsonb_path_ops)")
        info = SegmentInfo(id=table.id, count=copied.count, kind="exact")
        if graphs.needs_graph(request.kind, copied.count, request.embed_dim):
            graphs.create_graph_in_background(table, lambda share: on_progress(round(share * copied.count)))
            ef, recall = _choose_ef(table, copied, parts, queries())
            info = info.model_copy(update={"kind": "hnsw", "ef": ef, "recall": recall, "measured": copied.count})
        if copied.held_out_rows:
            table.add(
                np.stack(copied.held_out_vectors), copied.held_out_items, copied.held_out_rows, copied.held_out_places
            )
        connection.execute(f"ANALYZE tinyclip_{table.id}")
        return info


def publish(generation: Generation) -> None:
    """Write the state of new tables, before the generation's document names them."""
    with job_connection() as connection:
        write_state(connection, generation)


@dataclass
class _Copied:
    """The rows of a table, and the rows held out of it until the graph's recall has been measured with them."""

    count: int = 0
    kept: list[Rows] = field(default_factory=list)
    """For each part, the places of its items without duplicates."""
    held_out_vectors: list[Matrix] = field(default_factory=list)
    held_out_items: list[Item] = field(default_factory=list)
    held_out_places: list[Place | None] = field(default_factory=list)
    held_out_rows: list[int] = field(default_factory=list)


def _copy_parts(
    table: Table, parts: Iterable[Part], places_of_parts: Iterable[Sequence[Place | None]], total: int, skipped: Skipped
) -> _Copied:
    copied, sample = _Copied(), _sample_rows(total)
    held_out_ids: set[str] = set()
    for (vectors_NE, items), known in zip(parts, chain(places_of_parts, repeat(None)), strict=False):
        images = known or [None] * len(items)
        existing = table.existing([id for id, _ in items]) | held_out_ids
        new: dict[str, int] = {}
        for place, (id, _) in enumerate(items):
            if id in new or id in existing:
                skipped.add_sample(id, "another sample has the same key")
            else:
                new[id] = place
        places = np.array(list(new.values()), np.int64)
        rows = copied.count + np.arange(len(places))
        held_out = np.isin(rows, sample)
        for place, row in zip(places[held_out].tolist(), rows[held_out].tolist(), strict=True):
            copied.held_out_vectors.append(vectors_NE[place])
            copied.held_out_items.append(items[place])
            copied.held_out_places.append(images[place])
            copied.held_out_rows.append(row)
            held_out_ids.add(items[place][0])
        added, new_rows = places[~held_out].tolist(), rows[~held_out].tolist()
        table.add(vectors_NE[added], [items[place] for place in added], new_rows, [images[place] for place in added])
        copied.kept.append(places)
        copied.count += len(places)
    return copied


def _sample_rows(total: int) -> Rows:
    if not total:
        return np.empty(0, np.int64)
    return np.random.default_rng(0).choice(total, min(RECALL_QUERIES, total // 10), replace=False)


def _choose_ef(table: Table, copied: _Copied, parts: Iterable[Part], queries_QE: Matrix | None) -> tuple[int, float | None]:
    linked = copied.count - len(copied.held_out_rows)
    held_out_QE = np.stack(copied.held_out_vectors) if copied.held_out_vectors else None
    groups = [group for group in (held_out_QE, queries_QE) if group is not None and len(group)]
    if not linked or not groups:
        return graphs.choose_ef(table, [], [])
    truth_QK = nearest_rows(_linked_rows(copied, parts), np.concatenate(groups), min(10, linked))
    ends = np.cumsum([len(group) for group in groups])[:-1]
    return graphs.choose_ef(table, groups, np.split(truth_QK, ends))


def _linked_rows(copied: _Copied, parts: Iterable[Part]) -> Iterator[tuple[Matrix, Rows]]:
    """Yield the vectors in the graph and their rows."""
    first = 0
    for (vectors_NE, _), places in zip(parts, copied.kept, strict=True):
        rows = first + np.arange(len(places))
        linked = ~np.isin(rows, copied.held_out_rows)
        yield vectors_NE[places[linked]], rows[linked]
        first += len(places)


