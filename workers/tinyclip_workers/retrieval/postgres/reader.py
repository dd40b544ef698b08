"""Searches an index in PostgreSQL: nothing of it is in the replica but a few connections.

Shapes: E embedding size.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as quoted

from psycopg import errors, sql
from tinyclip.filters import Condition
from tinyclip.index_database import table_name
from tinyclip.schemas import Hit

from tinyclip_workers.retrieval.files import Generation
from tinyclip_workers.retrieval.postgres.conditions import given_text
from tinyclip_workers.retrieval.postgres.database import Connection, Pool, shared_pool
from tinyclip_workers.retrieval.postgres.searching import Row, compare_all, count_up_to, walk
from tinyclip_workers.retrieval.reader import HITS, Found, Replaced
from tinyclip_workers.types import Matrix

MOST_FILTERS = 64
"""Whose number of items is remembered."""
FILTERED_STEP_COST = 3
"""What one step of a filtered walk through the graph costs, in items compared: with this, what is cheaper was taken of
20,000 and of 100,000 items, with filters that leave a half, a tenth and a hundredth (bench/pgvector.py)."""


class PostgresReader:
    """One generation; its tables may be a generation further already, which is then what is found."""

    def __init__(self, generation: Generation, pool: Pool | None = None) -> None:
        """Raises NoDatabase."""
        self.generation = generation
        [self._info] = generation.segments
        self._table = sql.Identifier(table_name(self._info.id))
        self._pool = pool or shared_pool()
        self._many: OrderedDict[str, bool] = OrderedDict()
        self._lock = threading.Lock()

    def nearest(self, query_E: Matrix, top_k: int, conditions: Sequence[Condition] = ()) -> Found:
        """The items with the largest cosine that meet all conditions, best first; equal ones in the order of the index.

        Raises Replaced, DatabaseAway.
        """
        try:
            with self._pool.connection() as connection:
                if self._info.kind == "hnsw" and (not conditions or self._leaves_many(connection, conditions)):
                    rows = walk(connection, self._table, query_E, top_k, self._info.ef, conditions)
                    if len(rows) == top_k:  # else the walk ended early, or there are no more
                        return Found(_hits(rows), "hnsw")
                return Found(_hits(compare_all(connection, self._table, query_E, top_k, conditions)), "exact")
        except errors.UndefinedTable as error:
            raise Replaced(f"the tables of index {self.generation.name} are gone") from error

    def _leaves_many(self, connection: Connection, conditions: Sequence[Condition]) -> bool:
        """Whether a filter leaves so many items that walking the graph, which meets the others too, is cheaper."""
        key = repr(conditions)  # to Python, 0 and False are the same condition
        with self._lock:
            known = self._many.get(key)
        if known is None:
            most = int((FILTERED_STEP_COST * self._info.ef * self._info.count) ** 0.5) + 1
            known = count_up_to(connection, self._table, conditions, most) >= most
            with self._lock:
                self._many[key] = known
                while len(self._many) > MOST_FILTERS:
                    self._many.popitem(last=False)
        return known


def _hits(rows: Sequence[Row]) -> list[Hit]:
    """Written as one JSON text and read at once, as those of files are."""
    texts = [f'{{"id":{quoted(given_text(row.id))},"score":{row.score!r},"metadata":{row.metadata}}}' for row in rows]
    return HITS.validate_json(f"[{','.join(texts)}]") if texts else []
