"""Builds a retrieval index from WebDataset shards: the entry point of the Ray job `tc-index-<name>-b<build>`.

    python -m tinyclip_workers.indexing --artifacts ROOT --index NAME --build N

The new build is written beside the old one, which answers until `current.json` points at the new one; a build that dies
leaves the old one as it was, and a second run of the same build starts it anew. Progress goes up as events.
"""

import argparse
import logging
import sys
import tempfile
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from tinyclip.schemas import IndexSource, Response
from tinyclip.schemas.artifacts import index_build_events

from tinyclip_workers.report import EventWriter, reporting
from tinyclip_workers.serving.engine import Engine, load_engine
from tinyclip_workers.serving.index_files import (
    ITEMS,
    MANIFEST,
    VECTORS,
    BuiltIndex,
    IndexWriter,
    build_folder,
    builds_folder,
    current_path,
    request_path,
)
from tinyclip_workers.serving.index_items import BATCH, Item, Progress, batches, read_items
from tinyclip_workers.shards import DataError, Skipped, expand_shards
from tinyclip_workers.store import Store

log = logging.getLogger(__name__)


class IndexRequest(Response):
    """`request.json`: what the control plane wants built."""

    name: str
    build: int
    model: str
    model_uri: str
    source: IndexSource


class Superseded(Exception):
    """A newer build was asked for, or the index was deleted; this one leaves without a word."""


def main(argv: list[str] | None = None) -> int:
    """0 built, or no longer wanted; 1 failed, and an `index.failed` event says why."""
    parser = argparse.ArgumentParser(prog="tinyclip_workers.indexing", description=__doc__)
    parser.add_argument("--artifacts", required=True)
    parser.add_argument("--index", required=True)
    parser.add_argument("--build", required=True, type=int)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    store = Store(args.artifacts)
    try:
        with reporting(store, index_build_events(args.index, args.build), args.build, "index") as events:
            return _built(store, args.index, args.build, events)
    except Superseded as gone:
        log.info("stopping: %s", gone)  # out here: as an event it would bring a deleted index's folder back
        return 0


def _built(store: Store, index: str, build: int, events: EventWriter) -> int:
    """The exit status; the last event says the same. Raises Superseded."""
    try:
        request = _request(store, index, build)
        build_index(store, request, load_engine(request.model_uri), events)
    except Superseded:
        raise
    except (ValueError, OSError) as error:
        code = "unreadable_data" if isinstance(error, DataError) else "index_failed"
        return _failed(events, code, str(error))
    except Exception as error:
        return _failed(events, "internal_error", f"{type(error).__name__}: {error}")
    return 0


def build_index(store: Store, request: IndexRequest, engine: Engine, events: EventWriter) -> BuiltIndex:
    """Encode every image of the shards, commit the build, remove the ones before it. Raises DataError or Superseded."""
    urls = expand_shards(request.source.shards)
    if not urls:
        shards = request.source.shards
        raise DataError(f"no shard matches {shards}; check the path", field="source.shards", value=shards)
    skipped = Skipped()
    folder = build_folder(request.name, request.build)
    with _workdir(store, folder) as workdir, IndexWriter(workdir, engine.embed_dim) as writer:
        progress = Progress(events, urls)
        for batch in batches(read_items(urls, request.source, engine, skipped, progress), BATCH):
            _add(writer, batch, engine, skipped)
            progress.report(writer.count)
        if writer.count == 0:
            raise DataError(_nothing_found(urls, skipped), field="source.shards", value=request.source.shards)
        writer.finish()
        built = BuiltIndex(
            name=request.name,
            build=request.build,
            nonce=uuid.uuid4().hex,
            model=request.model,
            embed_dim=engine.embed_dim,
            count=writer.count,
            skipped=skipped.samples,
        )
        _commit(store, request, workdir, built)
    counts = {"count": built.count, "skipped_samples": skipped.samples, "skipped_shards": skipped.shards}
    events.send("index.finished", message=_what_was_skipped(skipped), data=counts)
    return built


def _commit(store: Store, request: IndexRequest, workdir: Path, built: BuiltIndex) -> None:
    """The manifest makes the build exist, the pointer makes it answer; then what came before goes."""
    folder = build_folder(built.name, built.build)
    if store.local_path(folder) != workdir:
        for file in (VECTORS, ITEMS):
            store.put_file(workdir / file, f"{folder}/{file}")
    document = built.model_dump_json().encode()
    store.write_bytes(f"{folder}/{MANIFEST}", document)
    _request(store, request.name, request.build)
    store.write_bytes(current_path(built.name), document)
    for older in store.list(builds_folder(built.name)):
        if older.isdigit() and int(older) < built.build:
            store.remove(f"{builds_folder(built.name)}/{older}")


def _request(store: Store, name: str, build: int) -> IndexRequest:
    """The request as it stands now. Raises Superseded if it no longer asks for this build."""
    try:
        request = IndexRequest.model_validate_json(store.read_bytes(request_path(name)))
    except FileNotFoundError as error:
        raise Superseded(f"index {name} was deleted") from error
    except ValidationError as error:
        raise ValueError(f"{store.uri(request_path(name))} is not a request for an index: {error}") from error
    if request.build != build:
        raise Superseded(f"index {name} is now at build {request.build}, this is {build}")
    return request


def _add(writer: IndexWriter, batch: list[Item], engine: Engine, skipped: Skipped) -> None:
    new: dict[str, Item] = {}
    for item in batch:
        if item.id in new or writer.has(item.id):
            skipped.sample(item.id, "another sample has this key already")
        else:
            new[item.id] = item
    if new:
        vectors = engine.encode_image(np.stack([item.picture for item in new.values()]))
        writer.add(vectors, [(item.id, item.metadata) for item in new.values()])


@contextmanager
def _workdir(store: Store, folder: str) -> Iterator[Path]:
    """Where the build's files are written: in place on a disk (they count for nothing without the manifest), else aside."""
    local = store.local_path(folder)
    if local is not None:
        store.remove(f"{folder}/{MANIFEST}")
        yield local
        return
    with tempfile.TemporaryDirectory(prefix="tinyclip-index-") as aside:
        yield Path(aside)


def _what_was_skipped(skipped: Skipped) -> str:
    if not skipped.samples and not skipped.shards:
        return ""
    return f"{skipped.samples:,} samples and {skipped.shards:,} shards were skipped, as {skipped.examples[0]}"


def _nothing_found(urls: list[str], skipped: Skipped) -> str:
    example = f", as {skipped.examples[0]}" if skipped.examples else ""
    return f"no image in {len(urls)} shards; {skipped.samples:,} samples were skipped{example}; check source.image_key"


def _failed(events: EventWriter, code: str, message: str) -> int:
    traceback.print_exc()
    events.send("index.failed", message=message, data={"code": code})
    return 1


if __name__ == "__main__":
    sys.exit(main())
