"""An index, opened for searching: one generation over its segments."""

from collections.abc import Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quoted
from typing import Protocol

import numpy as np
from pydantic import TypeAdapter
from tinyclip.filters import Condition
from tinyclip.schemas import Hit

from tinyclip_workers.retrieval.files import Generation, Kind
from tinyclip_workers.retrieval.segment import Best, Dead, Segment
from tinyclip_workers.types import Matrix

HITS = TypeAdapter(list[Hit])


@dataclass(frozen=True)
class Found:
    hits: list[Hit]
    kind: Kind
    """`hnsw` if a graph was walked for any of them; `exact` where all candidates were compared."""


class Replaced(Exception):
    """What the generation named is gone: a newer one has taken its place, or the index was deleted."""


class DatabaseAway(OSError):
    """The database that an index is in does not answer, or could not do what it was asked."""


class Reader(Protocol):
    """What searches an index."""

    generation: Generation

    def nearest(self, query_E: Matrix, top_k: int, conditions: Sequence[Condition] = ()) -> Found:
        """The items with the largest cosine that meet all conditions, best first. Raises Replaced, DatabaseAway."""
        ...


class IndexReader:
    """One generation. Segments may be shared with the generations before and after it."""

    def __init__(self, generation: Generation, segments: Sequence[Segment], dead: Sequence[Dead]) -> None:
        """`dead` are the rows of each segment that this generation has no more."""
        self.generation = generation
        self.segments, self.dead = list(segments), list(dead)

    def nearest(self, query_E: Matrix, top_k: int, conditions: Sequence[Condition] = ()) -> Found:
        """The items with the largest cosine that meet all conditions, best first; equal ones in the order of the index."""
        best = [
            segment.nearest(query_E, top_k, dead, conditions) for segment, dead in zip(self.segments, self.dead, strict=True)
        ]
        if len(best) == 1:
            return Found(_hits(self.segments[0], best[0].rows.tolist(), best[0].scores.tolist()), best[0].kind)
        kind: Kind = "hnsw" if any(found.kind == "hnsw" for found in best) else "exact"
        return Found(self._merged(best, top_k), kind)

    def _merged(self, best: Sequence[Best], top_k: int) -> list[Hit]:
        """The best of all segments' best."""
        if not best:
            return []
        order = np.argsort(-np.concatenate([found.scores for found in best]), kind="stable")[:top_k]
        owners = np.repeat(np.arange(len(best)), [len(found.rows) for found in best])[order]
        rows, scores = (np.concatenate([getattr(found, part) for found in best])[order] for part in ("rows", "scores"))
        hits: list[Hit | None] = [None] * len(order)
        for owner in set(owners.tolist()):
            places = np.flatnonzero(owners == owner)
            its_hits = _hits(self.segments[owner], rows[places].tolist(), scores[places].tolist())
            for place, hit in zip(places, its_hits, strict=True):
                hits[place] = hit
        return [hit for hit in hits if hit is not None]


def _hits(segment: Segment, rows: list[int], scores: list[float]) -> list[Hit]:
    """Written as one JSON text and read at once: half of what it takes one by one, and a tenth of a search counts."""
    if not rows:
        return []
    items = segment.items(rows)
    texts = [
        f'{{"id":{quoted(items[row][0])},"score":{score!r},"metadata":{items[row][1]}}}'
        for row, score in zip(rows, scores, strict=True)
    ]
    return HITS.validate_json(f"[{','.join(texts)}]")
