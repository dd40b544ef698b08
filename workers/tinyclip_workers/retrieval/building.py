"""Build an index from the images of WebDataset shards: encode them part by part, write the segment, commit the generation."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from tinyclip.artifacts.documents import IndexRequest
from tinyclip.artifacts.paths import index_builds
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JSON

from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.retrieval import graph as graphs
from tinyclip_workers.retrieval import parts as build_parts
from tinyclip_workers.retrieval.commits import commit, newest, remove_unused
from tinyclip_workers.retrieval.generations import Generation, SegmentInfo, kind_of
from tinyclip_workers.retrieval.items import BATCH, BuildProgress, batches, read_items
from tinyclip_workers.retrieval.parts import BuildState, EncodedParts
from tinyclip_workers.retrieval.pictures import Place
from tinyclip_workers.retrieval.recall import RECALL_QUERIES
from tinyclip_workers.retrieval.segment_writer import encodable, new_segment
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.types import Matrix

StillWanted = Callable[[], Any]
"""Raises if the build is no longer wanted."""


def build_index(
    store: ArtifactsStore, request: IndexRequest, load: Callable[[], Engine], events: EventWriter, still_wanted: StillWanted
) -> Generation:
    """Build an index and commit it; return the committed generation. Raises DataError, or what `still_wanted` raises."""
    done = newest(store, request.name)
    if done is not None and done.build == request.build:  # committed by an attempt that ended before it reported that
        remove_unused(store, done)
        store.remove(index_builds(request.name))
        return _report_finished(events, done, "")
    if request.store == "pgvector":
        _expect_database()
    skipped, segments = Skipped(), []
    if request.source is not None:
        encoded = _encode(store, request, load, events)
        write, skipped = (_write_segment if request.store == "files" else _write_tables), encoded.state.skipped
        segments = [write(store, request, encoded)]
    elif request.store == "pgvector":
        segments = [_write_tables(store, request, None)]
    generation = _commit(store, request, segments, skipped, still_wanted)
    return _report_finished(events, generation, _remarks(skipped, generation, request))


@dataclass
class _Encoded:
    """The encoded items of a build."""

    parts: EncodedParts
    state: BuildState
    engine: Engine
    progress: BuildProgress

    def report_linked(self, done: int) -> None:
        self.progress.report_linked(done, self.state.items)

    def caption_queries(self) -> Matrix | None:
        """Return embeddings of captions: most queries are texts, and their embeddings lie apart from those of images."""
        metadata = chain.from_iterable((item[1] for item in items) for _, items in self.parts)
        captions = (one["caption"] for one in metadata if isinstance(one.get("caption"), str))
        sample = list(islice(captions, RECALL_QUERIES))
        return self.engine.encode_text(sample) if sample else None


def _encode(store: ArtifactsStore, request: IndexRequest, load: Callable[[], Engine], events: EventWriter) -> _Encoded:
    """Encode the shards from the end of the existing parts on. Raises DataError."""
    assert request.source is not None
    urls = expand_shards(request.source.shards)
    if not urls:
        shards = request.source.shards
        raise DataError(f"no shard matches {shards}; check the path", field="source.shards", value=shards)
    parts, engine = EncodedParts(store, request, urls), load()
    state = parts.state()
    progress = BuildProgress(events, urls, state.position, state.seen_bytes)
    if state.items:
        progress.report_encoded(state.items)
    rows: list[Matrix] = []
    items: list[tuple[str, JSON]] = []
    places: list[Place | None] = []
    for batch in batches(read_items(urls, request.source, engine, state.skipped, progress), BATCH):
        rows.append(engine.encode_image(np.stack([item.image for item in batch])))
        items += [(encodable(item.id), item.metadata) for item in batch]
        places += [item.place for item in batch]
        state.items += len(batch)
        state.position, state.seen_bytes = progress.position, progress.seen_bytes
        if len(items) >= build_parts.ROWS:
            parts.add(np.concatenate(rows), items, places, state)
            rows, items, places = [], [], []
        progress.report_encoded(state.items)
    if items:
        parts.add(np.concatenate(rows), items, places, state)
    if state.items == 0:
        message = f"no image in {len(urls)} shards; {state.skipped.samples:,} samples were skipped{_example(state.skipped)}"
        raise DataError(f"{message}; check source.image_key", field="source.shards", value=request.source.shards)
    return _Encoded(parts, state, engine, progress)


def _write_segment(store: ArtifactsStore, request: IndexRequest, encoded: _Encoded) -> SegmentInfo:
    size = request.dimensions or encoded.engine.embed_dim
    with new_segment(store, request.name, size, request.codes) as segment:
        for (vectors_NE, items), places in zip(encoded.parts, encoded.parts.places(), strict=True):
            new: dict[str, int] = {}
            for place, (id, _) in enumerate(items):
                if id in new or segment.has(id):
                    encoded.state.skipped.add_sample(id, "another sample has the same key")
                else:
                    new[id] = place
            if new:
                chosen = list(new.values())
                segment.add(vectors_NE[chosen], [items[place] for place in chosen], [places[place] for place in chosen])
        graph = request.codes == "float" and graphs.needs_graph(request.kind, segment.count, segment.count)
        queries_QE = encoded.caption_queries() if graph or request.codes != "float" else None
        return segment.finish(graph=graph, queries_QE=queries_QE, on_progress=encoded.report_linked)


def _write_tables(store: ArtifactsStore, request: IndexRequest, encoded: _Encoded | None) -> SegmentInfo:
    """Write the items, or none, into new tables."""
    from tinyclip_workers.retrieval.postgres.building import build_tables  # an extra

    if encoded is None:
        return build_tables(store, request, (), Skipped(), total=0, queries=lambda: None, on_progress=lambda done: None)
    return build_tables(
        store, request, encoded.parts, encoded.state.skipped, places=encoded.parts.places(), total=encoded.state.items,
        queries=encoded.caption_queries, on_progress=encoded.report_linked,
    )  # fmt: skip


def _expect_database() -> None:
    """Check the database before hours of encoding. Raises MissingExtra, DatabaseNotUsable, DatabaseUnavailable."""
    from tinyclip_workers.retrieval.postgres.building import expect_database  # an extra

    expect_database()


def _commit(
    store: ArtifactsStore, request: IndexRequest, segments: list[SegmentInfo], skipped: Skipped, still_wanted: StillWanted
) -> Generation:
    """Commit the build under the next free number: it does not depend on the generations before it."""
    while True:
        still_wanted()
        before = newest(store, request.name)
        generation = Generation(
            name=request.name, number=before.number + 1 if before else 1, nonce=uuid.uuid4().hex, build=request.build,
            model=request.model, embed_dim=request.embed_dim, dimensions=request.dimensions, codes=request.codes,
            count=sum(segment.count for segment in segments),
            skipped_samples=skipped.samples, skipped_shards=skipped.shards, kind=kind_of(segments), store=request.store,
            applied=request.applied, segments=segments,
        )  # fmt: skip
        if generation.store == "pgvector":
            from tinyclip_workers.retrieval.postgres.building import publish  # an extra

            publish(generation)
        if commit(store, generation):
            remove_unused(store, generation)
            store.remove(index_builds(request.name))
            return generation


def _report_finished(events: EventWriter, generation: Generation, message: str) -> Generation:
    data = generation.model_dump(include={"build", "count", "kind", "skipped_samples", "skipped_shards"})
    events.send("index.finished", message=message, data={**data, **generation.measurements()})
    return generation


def _remarks(skipped: Skipped, generation: Generation, request: IndexRequest) -> str:
    remarks = []
    if skipped.samples or skipped.shards:
        remarks.append(f"{skipped.samples:,} samples and {skipped.shards:,} shards were skipped{_example(skipped)}")
    large = generation.count >= graphs.GRAPH_FROM
    if request.kind == "auto" and request.codes == "float" and generation.store == "files" and large and not graphs.available():
        remarks.append(f"the index is searched exactly, which is slow at this size: {graphs.INSTALL_HINT}")
    return "; ".join(remarks)


def _example(skipped: Skipped) -> str:
    return f", for example {skipped.examples[0]}" if skipped.examples else ""
