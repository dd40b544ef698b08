"""Single items of an index in PostgreSQL and thumbnails of their images, through builds and updates."""

from pathlib import Path

import pytest
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.index_database import pictures_name, shards_name, table_name
from tinyclip_workers.retrieval.images import NoThumbnail
from tinyclip_workers.retrieval.viewing import Items, NoSuchItem, open_items

from tests.postgres import TABLES, connected_to, tables
from tests.workers.index_jobs import IN_POSTGRES, newest_generation, request_build, run_job, unit_vectors, update, vector_items
from tests.workers.retrieval.test_viewing import COUNT, closed_files, shards, shows, write_shards
from tests.workers.students import base64_image

__all__ = ["closed_files", "shards"]


@pytest.fixture
def root(tmp_path: Path, folder: Path, shards: str, index_database: str) -> Path:
    """A store with an index of the shards, whose items are in the database."""
    request_build(tmp_path / "store", folder, shards, kind="hnsw", **IN_POSTGRES)
    assert run_job(tmp_path / "store") == 0
    return tmp_path / "store"


def items(root: Path) -> Items:
    return open_items(str(root), "gallery", newest_generation(root).nonce)


def count(url: str, table: str) -> int:
    with connected_to(url) as connection:
        [number] = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(number)


def table_id(root: Path) -> str:
    return newest_generation(root).segments[0].id


def forget_pictures(root: Path, url: str) -> None:
    """Make the index one of an older version."""
    with connected_to(url) as connection:
        connection.execute(f"DROP TABLE {pictures_name(table_id(root))}, {shards_name(table_id(root))}")


def test_every_item_of_a_build_has_its_own_image(root: Path, index_database: str) -> None:
    found = items(root)

    for number in [*range(COUNT), 3, 25, 3]:
        assert shows(found.thumbnail(f"p/{number:02}", 32), number)
    view = found.view("p/21")
    assert (view.id, view.has_thumbnail, view.metadata["caption"]) == ("p/21", True, "picture 21")
    assert view.shard is not None
    assert "a-1.tar" in view.shard
    assert count(index_database, shards_name(table_id(root))) == 2


def test_updates_replace_and_remove_images(root: Path, folder: Path, index_database: str) -> None:
    new = [{"id": "p/03", "image": base64_image(3)}, {"id": "p/04", "text": "a cat"}, {"id": "new", "image": base64_image(4)}]
    update(root, folder, 1, new, ["p/05"], **IN_POSTGRES)
    found = items(root)

    assert not shows(found.thumbnail("p/03", 32), 3)
    assert (found.view("p/03").shard, found.view("p/03").has_thumbnail, found.view("new").has_thumbnail) == (None, True, True)
    assert not found.view("p/04").has_thumbnail
    with pytest.raises(NoThumbnail, match="added without an image"):
        found.thumbnail("p/04", 32)
    with pytest.raises(NoSuchItem):
        found.view("p/05")
    for number in (0, 1, 2, *range(6, COUNT)):
        assert shows(found.thumbnail(f"p/{number:02}", 32), number)
    with_pictures, all_items = (count(index_database, name(table_id(root))) for name in (pictures_name, table_name))
    assert (with_pictures, all_items) == (COUNT - 1, COUNT)


def test_a_shard_that_has_changed_shows_nothing(root: Path, shards: str) -> None:
    write_shards(Path(shards).parent, packed=shards.endswith("gz"), first=1)

    with pytest.raises(NoThumbnail, match=r"has changed since the index was built; build it again"):
        items(root).thumbnail("p/20", 32)


def test_an_older_index_stays_readable_and_updatable_and_has_pictures_after_a_build(
    root: Path, folder: Path, shards: str, index_database: str
) -> None:
    forget_pictures(root, index_database)

    update(root, folder, 1, [*vector_items(unit_vectors(5, 24)), {"id": "p/03", "image": base64_image(3)}], **IN_POSTGRES)
    for id in ("p/02", "p/03"):
        assert not items(root).view(id).has_thumbnail
        with pytest.raises(NoThumbnail, match=r"build it again"):
            items(root).thumbnail(id, 32)

    request_build(root, folder, shards, build=2, **IN_POSTGRES)
    assert run_job(root, 2) == 0
    assert shows(items(root).thumbnail("p/02", 32), 2)
    assert len(tables(index_database)) == TABLES


def test_without_tables_there_are_no_items(root: Path, index_database: str) -> None:
    found = items(root)
    with connected_to(index_database) as connection:
        for name in tables(index_database):
            connection.execute(f"DROP TABLE {name}")

    with pytest.raises(NoSuchItem, match="no longer exist"):
        found.view("p/02")
    assert ArtifactsStore(str(root)).list("indexes/gallery/tables") == [table_id(root)]
