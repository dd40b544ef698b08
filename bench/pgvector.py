"""Measure the cost of an index in PostgreSQL: `python -m bench.pgvector [--rows 100000] [--queries 200] [--json FILE]`.

The vectors of `search.py` are written to tables as a build does, in a server that this script starts (from the wheel that the
tests use), with 256 MB of maintenance memory, 64 MB of shared buffers and no parallel workers. Each query runs in our reader.
Times are CPU times of this process and of all processes of PostgreSQL, so that other load on the machine has little influence.
The results also contain the sizes of tables and graph, recall@10 against exact search, also with filters, the same graph in full
instead of half precision (`--full`), and the cost of updates of a thousand items.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from psycopg import sql
from tinyclip.artifacts.documents import IndexRequest
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.filters import parse_filter
from tinyclip.index_database import VARIABLE
from tinyclip.schemas import JSON
from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.retrieval.generations import Generation
from tinyclip_workers.retrieval.merging import NewItem
from tinyclip_workers.retrieval.postgres import graph as graphs
from tinyclip_workers.retrieval.postgres.building import build_tables, publish
from tinyclip_workers.retrieval.postgres.database import Connection, ReplicaPool, job_connection
from tinyclip_workers.retrieval.postgres.queries import search_exact
from tinyclip_workers.retrieval.postgres.reader import PostgresReader
from tinyclip_workers.retrieval.postgres.table import Table
from tinyclip_workers.retrieval.postgres.updating import apply_changes
from tinyclip_workers.retrieval.recall import exact_rows

from bench.search import CHUNK, EMBED_DIM, FILTERS, item_metadata, mean_share, vectors
from tests.postgres import database, postgres_server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--full", action="store_true", help="also build the graph in full precision")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    with postgres_server() as server, database(server) as url, tempfile.TemporaryDirectory() as root:
        os.environ[VARIABLE] = f"{url}?options=-cmax_parallel_workers_per_gather%3D0%20-cmax_parallel_maintenance_workers%3D0"
        for result in measure(ArtifactsStore(root), arguments.rows, arguments.queries, full=arguments.full):
            text = json.dumps(result, indent=1)
            print(text, flush=True)
            if arguments.json is not None:
                arguments.json.write_text(text + "\n")


class Parts:
    """The encoded parts of a build."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[tuple[Any, list[tuple[str, JSON]]]]:
        for start in range(0, self.rows, CHUNK):
            items = [(str(i), item_metadata(i)) for i in range(start, min(self.rows, start + CHUNK))]
            yield vectors(len(items), seed=start + 1), items


def measure(store: ArtifactsStore, rows: int, count: int, *, full: bool) -> Iterator[dict[str, Any]]:
    """Yield the result so far, after each measurement."""
    pool = ReplicaPool()
    with job_connection() as connection:
        server = psutil.Process(connection.info.backend_pid).parent()
        assert server is not None
        meter = Meter(server)
        generation, costs = build(store, rows, meter)
        table = Table(connection, generation.segments[0].id, EMBED_DIM)
        result: dict[str, Any] = {
            "rows": rows, "dimensions": EMBED_DIM, "postgresql": connection.info.server_version, **costs,
            "table_bytes": relation_size(connection, f"tinyclip_{table.id}"), "index_bytes": index_sizes(connection, table),
        }  # fmt: skip
        yield result
        reader = PostgresReader(generation, pool)
        everything = np.concatenate([part for part, _ in Parts(rows)])
        queries_QE = vectors(count, seed=rows + 1)
        result["searches"] = {"graph": measure_search(reader, everything, queries_QE, None, meter)}
        compared = meter.ms(lambda query: search_exact(connection, table.name, query, 10), queries_QE[:20])
        result["searches"]["exact"] = {"ms_of_the_processor": compared}
        yield result
        for share, filter in FILTERS.items():
            result["searches"][f"filter {share}"] = measure_search(reader, everything, queries_QE[:50], filter, meter)
            yield result
        result["update"] = measure_updates(generation, meter)
        yield result
        if full:
            result["full_precision"] = measure_full_precision(table, everything, queries_QE, generation.segments[0].ef, meter)
            yield result
    pool.close()


class Meter:
    """CPU seconds of this process and of a server with all its children."""

    def __init__(self, server: psutil.Process) -> None:
        self._server = server

    def now(self) -> float:
        times = self._server.cpu_times()
        children = sum(sum(child.cpu_times()[:2]) for child in self._server.children(recursive=True))
        return float(sum(times[:4])) + children + time.process_time()

    def ms(self, search: Callable[[Any], Any], queries_QE: Any) -> float:
        """Return the mean CPU milliseconds of a query."""
        search(queries_QE[0])
        start = self.now()
        for query_E in queries_QE:
            search(query_E)
        return 1000 * (self.now() - start) / len(queries_QE)


def build(store: ArtifactsStore, rows: int, meter: Meter) -> tuple[Generation, dict[str, Any]]:
    request = IndexRequest(
        name="gallery", job="b1", build=1, model="bench@1", model_uri="", embed_dim=EMBED_DIM, kind="hnsw", store="pgvector"
    )
    marks: list[tuple[float, float]] = []
    begun = (meter.now(), time.perf_counter())
    info = build_tables(
        store, request, Parts(rows), Skipped(), total=rows, queries=lambda: None,
        on_progress=lambda done: marks.append((meter.now(), time.perf_counter())),
    )  # fmt: skip
    generation = Generation(
        name="gallery", number=1, nonce="bench", build=1, model="bench@1", embed_dim=EMBED_DIM, count=rows, kind="hnsw",
        store="pgvector", segments=[info],
    )  # fmt: skip
    publish(generation)
    return generation, {
        "copied_cpu_s": marks[0][0] - begun[0], "linked_cpu_s": marks[-1][0] - marks[0][0],
        "linked_s": marks[-1][1] - marks[0][1], "build_cpu_s": meter.now() - begun[0], "ef": info.ef,
        "recall_on_the_builds_sample": info.recall,
    }  # fmt: skip


def measure_search(reader: PostgresReader, everything: Any, queries_QE: Any, filter: Any, meter: Meter) -> dict[str, Any]:
    conditions = parse_filter(filter or {})
    wanted = (filter or {}).items()
    rows = np.array([i for i in range(len(everything)) if all(item_metadata(i)[key] == value for key, value in wanted)])
    truth = rows[exact_rows(everything[rows], queries_QE, 10)]
    found = [reader.nearest(query, 10, conditions) for query in queries_QE]
    return {
        "items": len(rows), "kind": found[0].kind,
        "recall_at_10": mean_share([[int(hit.id) for hit in one.hits] for one in found], truth),
        "ms_of_the_processor": meter.ms(lambda query: reader.nearest(query, 10, conditions), queries_QE),
    }  # fmt: skip


def measure_updates(generation: Generation, meter: Meter) -> dict[str, float]:
    new = {f"new{i}": NewItem(row_E, item_metadata(i)) for i, row_E in enumerate(vectors(1000, seed=7))}
    begun = meter.now()
    after = apply_changes(generation, new, "hnsw", applied=1, rejected=[], still_wanted=lambda: None)
    added = meter.now()
    apply_changes(after, dict.fromkeys(new), "hnsw", applied=2, rejected=[], still_wanted=lambda: None)
    return {"add_1000_cpu_s": added - begun, "remove_1000_cpu_s": meter.now() - added}


def measure_full_precision(table: Table, everything: Any, queries_QE: Any, ef: int, meter: Meter) -> dict[str, Any]:
    """Measure a graph in full precision, the alternative to the one in half precision."""
    begun = meter.now()
    table.connection.execute(sql.SQL(
        "CREATE INDEX in_full ON {} USING hnsw (vector vector_ip_ops) WITH (m = {}, ef_construction = {})"
    ).format(table.name, graphs.LINKS, graphs.BUILD_WIDTH))  # fmt: skip
    linked = meter.now() - begun
    query = sql.SQL("SELECT id FROM {} ORDER BY vector <#> %s LIMIT 10").format(table.name)
    table.connection.execute(f"SET hnsw.ef_search = {ef}")
    table.connection.execute("SET enable_seqscan = off")
    truth = exact_rows(everything, queries_QE, 10)
    found = [[int(id) for (id,) in table.connection.execute(query, (query_E,)).fetchall()] for query_E in queries_QE]
    return {
        "linked_cpu_s": linked, "index_bytes": relation_size(table.connection, "in_full"),
        "recall_at_10": mean_share(found, truth),
        "ms_of_the_processor": meter.ms(lambda query_E: table.connection.execute(query, (query_E,)).fetchall(), queries_QE),
    }  # fmt: skip


def relation_size(connection: Connection, relation: str) -> int:
    [bytes] = connection.execute("SELECT pg_table_size(%s::regclass)", (relation,)).fetchone() or (0,)
    return int(bytes)


def index_sizes(connection: Connection, table: Table) -> dict[str, int]:
    query = "SELECT am.amname, sum(pg_relation_size(i.indexrelid)) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid" \
        " JOIN pg_am am ON am.oid = c.relam WHERE i.indrelid = %s::regclass GROUP BY 1"
    return {name: int(bytes) for name, bytes in connection.execute(query, (f"tinyclip_{table.id}",)).fetchall()}


if __name__ == "__main__":
    main()
