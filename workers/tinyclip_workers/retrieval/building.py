"""Builds an index from the pictures of WebDataset shards: encode, a part at a time, then put together, link and commit."""

import uuid
from collections.abc import Callable
from itertools import chain, islice
from typing import Any

import numpy as np
from tinyclip.artifacts.documents import IndexRequest
from tinyclip.artifacts.paths import index_builds
from tinyclip.schemas import JSON

from tinyclip_workers.data.shards import DataError, Skipped, expand_shards
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.retrieval import graph as graphs
from tinyclip_workers.retrieval import parts as parts_files
from tinyclip_workers.retrieval.files import Generation, SegmentInfo, commit, kind_of, newest
from tinyclip_workers.retrieval.items import BATCH, Progress, batches, read_items
from tinyclip_workers.retrieval.leftovers import remove_all_others
from tinyclip_workers.retrieval.new_segment import GRAPH_FROM, needs_graph, new_segment
from tinyclip_workers.retrieval.parts import Parts
from tinyclip_workers.retrieval.segment_writer import storable
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.runtime.store import Store
from tinyclip_workers.types import Matrix

StillWanted = Callable[[], Any]
"""Raises if the build is not wanted any more."""


def build_index(
    store: Store, request: IndexRequest, load: Callable[[], Engine], events: EventWriter, still_wanted: StillWanted
) -> Generation:
    """The generation that answers from now on. Raises DataError, or what `still_wanted` raises."""
    done = newest(store, request.name)
    if done is not None and done.build == request.build:  # committed by an attempt that did not live to tell
        remove_all_others(store, done)
        store.remove(index_builds(request.name))
        return _told(events, done, "")
    if request.store == "pgvector":
        _expect_database()
    skipped, segments = Skipped(), []
    if request.source is not None:
        urls = expand_shards(request.source.shards)
        if not urls:
            shards = request.source.shards
            raise DataError(f"no shard matches {shards}; check the path", field="source.shards", value=shards)
        parts, engine = Parts(store, request, urls), load()
        reached = parts.reached()
        progress, skipped = Progress(events, urls, reached.position, reached.seen_bytes), reached.skipped
        _encode(parts, reached, request, urls, engine, progress)
        if reached.items == 0:
            raise DataError(_nothing_found(urls, skipped), field="source.shards", value=request.source.shards)
        put_together = _put_together if request.store == "files" else _put_into_tables
        segments = [put_together(store, request, parts, engine, skipped, progress, reached.items)]
    elif request.store == "pgvector":
        segments = [_empty_tables(store, request)]
    generation = _committed(store, request, segments, skipped, still_wanted)
    return _told(events, generation, _remarks(skipped, generation, request))


def _told(events: EventWriter, generation: Generation, message: str) -> Generation:
    data = generation.model_dump(include={"build", "count", "kind", "skipped_samples", "skipped_shards"})
    events.send("index.finished", message=message, data={**data, "recall": generation.recall})
    return generation


def _encode(
    parts: Parts, reached: parts_files.Reached, request: IndexRequest, urls: list[str], engine: Engine, progress: Progress
) -> None:
    """From where the parts end to the end of the shards; `reached` goes along."""
    assert request.source is not None
    if reached.items:
        progress.report(reached.items)
    rows: list[Matrix] = []
    items: list[tuple[str, JSON]] = []
    for batch in batches(read_items(urls, request.source, engine, reached.skipped, progress), BATCH):
        rows.append(engine.encode_image(np.stack([item.picture for item in batch])))
        items += [(storable(item.id), item.metadata) for item in batch]
        reached.items += len(batch)
        reached.position, reached.seen_bytes = progress.position, progress.seen
        if len(items) >= parts_files.ROWS:
            parts.add(np.concatenate(rows), items, reached)
            rows, items = [], []
        progress.report(reached.items)
    if items:
        parts.add(np.concatenate(rows), items, reached)


def _put_together(
    store: Store, request: IndexRequest, parts: Parts, engine: Engine, skipped: Skipped, progress: Progress, total: int
) -> SegmentInfo:
    with new_segment(store, request.name, engine.embed_dim) as segment:
        writer = segment.writer
        for vectors_NE, items in parts:
            new: dict[str, int] = {}
            for place, (id, _) in enumerate(items):
                if id in new or writer.has(id):
                    skipped.sample(id, "another sample has this key already")
                else:
                    new[id] = place
            if new:
                writer.add(vectors_NE[list(new.values())], [items[place] for place in new.values()])
        graph = needs_graph(request.kind, writer.count, writer.count)
        return segment.finish(
            graph=graph,
            queries_QE=_caption_queries(parts, engine) if graph else None,
            on_progress=lambda done: progress.report_linked(done, total),
        )


def _expect_database() -> None:
    """Before hours of encoding. Raises MissingExtra, NoDatabase, DatabaseAway."""
    from tinyclip_workers.retrieval.postgres.filling import expect_database  # an extra

    expect_database()


def _put_into_tables(
    store: Store, request: IndexRequest, parts: Parts, engine: Engine, skipped: Skipped, progress: Progress, total: int
) -> SegmentInfo:
    from tinyclip_workers.retrieval.postgres.filling import filled_tables  # an extra

    return filled_tables(
        store, request, parts, skipped, total=total,
        queries=lambda: _caption_queries(parts, engine), on_progress=lambda done: progress.report_linked(done, total),
    )  # fmt: skip


def _empty_tables(store: Store, request: IndexRequest) -> SegmentInfo:
    from tinyclip_workers.retrieval.postgres.filling import filled_tables  # an extra

    return filled_tables(store, request, (), Skipped(), total=0, queries=lambda: None, on_progress=lambda done: None)


def _publish(generation: Generation) -> None:
    from tinyclip_workers.retrieval.postgres.filling import publish  # an extra

    publish(generation)


def _caption_queries(parts: Parts, engine: Engine) -> Matrix | None:
    """Embeddings of captions: texts lie elsewhere than pictures, and they are what most searches ask."""
    metadata = chain.from_iterable((item[1] for item in items) for _, items in parts)
    captions = list(islice((one["caption"] for one in metadata if isinstance(one.get("caption"), str)), graphs.SAMPLE))
    return engine.encode_text(captions) if captions else None


def _committed(
    store: Store, request: IndexRequest, segments: list[SegmentInfo], skipped: Skipped, still_wanted: StillWanted
) -> Generation:
    """A build stands for itself: if another change takes its number meanwhile, the next number is as good."""
    while True:
        still_wanted()
        before = newest(store, request.name)
        generation = Generation(
            name=request.name, number=before.number + 1 if before else 1, nonce=uuid.uuid4().hex, build=request.build,
            model=request.model, embed_dim=request.embed_dim, count=sum(segment.count for segment in segments),
            skipped_samples=skipped.samples, skipped_shards=skipped.shards, kind=kind_of(segments), store=request.store,
            applied=request.applied, segments=segments,
        )  # fmt: skip
        if generation.store == "pgvector":
            _publish(generation)
        if commit(store, generation):
            remove_all_others(store, generation)
            store.remove(index_builds(request.name))
            return generation


def _remarks(skipped: Skipped, generation: Generation, request: IndexRequest) -> str:
    said = []
    if skipped.samples or skipped.shards:
        example = f", as {skipped.examples[0]}" if skipped.examples else ""
        said.append(f"{skipped.samples:,} samples and {skipped.shards:,} shards were skipped{example}")
    if request.kind == "auto" and generation.store == "files" and generation.count >= GRAPH_FROM and not graphs.available():
        said.append(f"it is searched exactly, which is slow at this size: {graphs.WAY_OUT}")
    return "; ".join(said)


def _nothing_found(urls: list[str], skipped: Skipped) -> str:
    example = f", as {skipped.examples[0]}" if skipped.examples else ""
    return f"no image in {len(urls)} shards; {skipped.samples:,} samples were skipped{example}; check source.image_key"

