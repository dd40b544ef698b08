"""The files of the artifacts store that the database names, and the state of indexes there.

In a complete backup, and in a service that lost nothing, all are there. What a job needs to continue is not among them: it
continues from the newest complete checkpoint, or begins again.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.paths import (
    DATASETS,
    EXPORT_DOCUMENT,
    INDEXES,
    MODELS,
    SEGMENT_CODES,
    SEGMENT_GRAPH,
    SEGMENT_ITEMS,
    dataset_blocks,
    dataset_document,
    dataset_report,
    dataset_samples,
    dataset_shards,
    dataset_version,
    exported_files,
    index_generation,
    index_generations,
    index_segment,
    index_table,
    index_tombstones,
    index_update,
    model_version,
    reinforcement_document,
    reinforcement_folder,
    version_predictions,
)
from tinyclip.schemas import ExportState, IndexState, ReinforcementState
from tinyclip.schemas.indexes import IndexCodes

from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.database.engine import Database
from tinyclip_server.database.tables import (
    DatasetVersionRow,
    ExportRow,
    IndexRow,
    IndexUpdateRow,
    ModelVersionRow,
    ReinforcementRow,
)
from tinyclip_server.indexes.database import read_states


class _Segment(BaseModel):
    id: str
    kind: str
    codes: IndexCodes = "float"
    dead: str | None = None


class StoredIndex(BaseModel):
    """The newest generation of an index, as far as the server reads it; the engine's `retrieval/generations.py` has all of it."""

    store: str = "files"
    count: int
    applied: int = 0
    segments: list[_Segment] = []


@dataclass(frozen=True)
class Stored:
    """The content of a store, compared with a database."""

    files: frozenset[str]
    """Paths of the files of models, indexes and data sets."""
    indexes: dict[str, StoredIndex]
    """The indexes that have rows. Of one in the index database the state there, if its URL was given."""
    missing: list[str]
    """Sorted paths that rows name and the store lacks, and tables that the index database lacks."""


async def examine(db: Database, store: AsyncArtifactsStore, index_database_url: str = "") -> Stored:
    """Compare a store with a database. Raises OSError, DatabaseUnavailable."""
    async with db.read() as session:
        wanted = [*await _of_versions(session), *await _of_exports(session), *await _of_datasets(session)]
        wanted += await _of_reinforcements(session)
        rows = (await session.scalars(select(IndexRow).where(IndexRow.state != IndexState.DELETING))).all()
        updates = (await session.scalars(select(IndexUpdateRow))).all()
    files = frozenset([file.path for folder in (MODELS, INDEXES, DATASETS) for file in await store.find(folder)])
    newest = {row.name: await _newest(store, row.name, files) for row in rows}
    for row in rows:
        index = newest[row.name]
        if index is None and row.progress >= 1.0:  # built
            wanted.append(f"{index_generations(row.name)}/")
        pending = [update for update in updates if update.index_name == row.name]
        wanted += _of_index(row.name, index, pending)
    indexes = {name: index for name, index in newest.items() if index is not None}
    missing = {path for path in wanted if path not in files}
    if index_database_url:
        missing |= await _follow_tables(index_database_url, indexes)
    return Stored(files, indexes, sorted(missing))


async def _of_versions(session: AsyncSession) -> list[str]:
    rows = (await session.scalars(select(ModelVersionRow))).all()
    paths = [f"{model_version(row.model_name, row.version)}/{file['path']}" for row in rows for file in row.document["files"]]
    for row in rows:  # those of an evaluation are in its folder, which is not among those that are listed
        of_training = [task for task, kept in row.document.get("predictions", {}).items() if kept["evaluation"] is None]
        paths += [version_predictions(row.model_name, row.version, task) for task in of_training]
    return paths


async def _of_exports(session: AsyncSession) -> list[str]:
    rows = (await session.scalars(select(ExportRow).where(ExportRow.state == ExportState.SUCCEEDED))).all()
    paths = []
    for row in rows:
        folder = exported_files(row.model_name, row.model_version, row.name)
        names = [EXPORT_DOCUMENT, *(file["path"] for file in (row.document or {"files": []})["files"])]
        paths += [f"{folder}/{name}" for name in names]
    return paths


async def _of_datasets(session: AsyncSession) -> list[str]:
    rows = (await session.scalars(select(DatasetVersionRow).where(DatasetVersionRow.deleted_at.is_(None)))).all()
    paths = []
    for row in rows:
        folder = dataset_version(row.dataset_name, row.version)
        paths += [dataset_document(row.dataset_name, row.version), dataset_report(folder)]
        paths += [dataset_shards(folder), dataset_blocks(folder)]
        paths += [dataset_samples(folder, shard) for shard in range(row.document["shards"])]
    return paths


async def _of_reinforcements(session: AsyncSession) -> list[str]:
    rows = await session.scalars(select(ReinforcementRow).where(ReinforcementRow.state == ReinforcementState.SUCCEEDED))
    folders = [reinforcement_folder(row.dataset_name, row.dataset_version, row.id) for row in rows]
    return [reinforcement_document(folder) for folder in folders]


async def _newest(store: AsyncArtifactsStore, index: str, files: Iterable[str]) -> StoredIndex | None:
    pattern = re.compile(rf"{re.escape(index_generations(index))}/(\d+)\.json")
    numbers = [int(match[1]) for path in files if (match := pattern.fullmatch(path))]
    document = await store.read_if_exists(index_generation(index, max(numbers))) if numbers else None
    return None if document is None else StoredIndex.model_validate_json(document)


def _of_index(name: str, index: StoredIndex | None, pending: Sequence[IndexUpdateRow]) -> list[str]:
    applied, segments = (index.applied, index.segments) if index else (0, [])
    found = [index_update(name, update.file) for update in pending if update.number > applied]
    if index is not None and index.store == "pgvector":
        return found + [index_table(name, segment.id) for segment in segments]
    for segment in segments:
        names = [*SEGMENT_CODES[segment.codes], SEGMENT_ITEMS, *([SEGMENT_GRAPH] if segment.kind == "hnsw" else [])]
        found += [f"{index_segment(name, segment.id)}/{file}" for file in names]
        if segment.dead:
            found.append(index_tombstones(name, segment.dead))
    return found


async def _follow_tables(url: str, indexes: dict[str, StoredIndex]) -> set[str]:
    """Replace indexes in the database by the state of their tables, of which documents are a copy. Return missing tables."""
    ids = {segment.id: name for name, index in indexes.items() if index.store == "pgvector" for segment in index.segments}
    states = await read_states(url, list(ids))
    for id, document in states.items():
        indexes[ids[id]] = StoredIndex.model_validate_json(document)
    return {f"tables tinyclip_{id}… of index {name}" for id, name in ids.items() if id not in states}
