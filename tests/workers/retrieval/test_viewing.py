"""Single items of an index and thumbnails of their images, through builds, updates and merges."""

import base64
import gzip
import io
import json
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tinyclip.addresses import READABLE_ROOTS
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip_workers.data.shards import read_placed
from tinyclip_workers.plan.diagnostics import Diagnostics
from tinyclip_workers.plan.items import item_or_problem, item_thumbnail_or_problem
from tinyclip_workers.retrieval import images, viewing
from tinyclip_workers.retrieval.images import NoThumbnail
from tinyclip_workers.retrieval.viewing import FilesItems, NoSuchItem

from tests.workers.index_jobs import newest_generation, request_build, run_job, unit_vectors, update, vector_items
from tests.workers.students import base64_image, encoded, random_image, write_shard

COUNT = 30


def flat(number: int) -> Image.Image:
    """Return an image of one colour, which shows whose it is."""
    return Image.new("RGB", (60, 40), (8 * number % 256, 255 - 8 * number % 256, 128))


def write_shards(root: Path, *, packed: bool = False, first: int = 0) -> str:
    samples = {f"p/{n:02}": {"png": encoded(flat(n + first)), "txt": f"picture {n}".encode()} for n in range(COUNT)}
    keys = list(samples)
    for part, chosen in enumerate((keys[:20], keys[20:])):
        path = write_shard(root / f"a-{part}.tar", {key: samples[key] for key in chosen})
        if packed:
            (root / f"a-{part}.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
    return str(root / ("a-{0..1}.tar.gz" if packed else "a-{0..1}.tar"))


@pytest.fixture(params=[False, True], ids=["tar", "tar.gz"])
def shards(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    (tmp_path / "shards").mkdir()
    return write_shards(tmp_path / "shards", packed=request.param)


@pytest.fixture
def root(tmp_path: Path, folder: Path, shards: str) -> Path:
    """A store with an index of the shards."""
    request_build(tmp_path / "store", folder, shards)
    assert run_job(tmp_path / "store") == 0
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def closed_files() -> Iterator[None]:
    yield
    images._images.close()


def items(root: Path) -> FilesItems:
    return FilesItems(ArtifactsStore(str(root)), newest_generation(root))


def shows(jpeg: bytes, number: int) -> bool:
    """Return whether a thumbnail is that of an image."""
    image = Image.open(io.BytesIO(jpeg))
    difference = np.asarray(image.convert("RGB"), float) - np.asarray(flat(number).resize(image.size), float)
    return image.format == "JPEG" and bool(np.abs(difference).max() < 4)


class TestPlaces:
    def test_every_item_of_a_build_has_its_own_image(self, root: Path) -> None:
        found = items(root)

        for number in [*range(COUNT), 3, 25, 3]:
            assert shows(found.thumbnail(f"p/{number:02}", 32), number)
        view = found.view("p/21")
        assert (view.id, view.has_thumbnail, view.metadata["caption"]) == ("p/21", True, "picture 21")
        assert view.shard is not None
        assert "a-1.tar" in view.shard

    def test_updates_and_merges_keep_them(self, root: Path, folder: Path) -> None:
        segments = set()
        for number in range(1, 5):
            update(root, folder, number, vector_items(unit_vectors(6, 24, seed=number), first=10 * number), [f"p/{number:02}"])
            segments.add(newest_generation(root).segments[0].id)
        found = items(root)

        assert len(segments) > 1  # the first one was merged
        for number in (0, *range(5, COUNT)):
            assert shows(found.thumbnail(f"p/{number:02}", 32), number)
        for number in range(1, 5):
            with pytest.raises(NoSuchItem):
                found.view(f"p/{number:02}")

    def test_a_killed_build_continues_with_the_places_of_its_parts(
        self, tmp_path: Path, folder: Path, shards: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tinyclip_workers.retrieval.parts.ROWS", 8)
        monkeypatch.setattr("tinyclip_workers.retrieval.building.BATCH", 8)
        request_build(tmp_path / "store", folder, shards)
        with monkeypatch.context() as patched:
            patched.setattr("tinyclip_workers.retrieval.building._write_segment", lambda *_: 1 / 0)
            assert run_job(tmp_path / "store") != 0

        assert run_job(tmp_path / "store") == 0
        assert all(shows(items(tmp_path / "store").thumbnail(f"p/{number:02}", 32), number) for number in range(COUNT))

    def test_a_replaced_item_shows_its_new_image(self, root: Path, folder: Path) -> None:
        update(root, folder, 1, [{"id": "p/03", "image": base64_image(3)}, {"id": "p/04", "text": "a cat"}])
        found = items(root)

        assert not shows(found.thumbnail("p/03", 32), 3)
        assert (found.view("p/03").shard, found.view("p/03").has_thumbnail) == (None, True)
        assert not found.view("p/04").has_thumbnail
        with pytest.raises(NoThumbnail, match="added without an image"):
            found.thumbnail("p/04", 32)


class TestSizes:
    def test_the_longer_side_has_the_size_and_images_are_not_enlarged(self, root: Path, folder: Path) -> None:
        update(root, folder, 1, [{"id": "large", "image": _base64(random_image(1, (900, 300)))}])
        found = items(root)

        thumbnails = [found.thumbnail(id, size) for id, size in [("p/03", 30), ("p/03", 256), ("large", 512)]]
        sizes = [Image.open(io.BytesIO(thumbnail)).size for thumbnail in thumbnails]

        assert sizes == [(30, 20), (60, 40), (256, 85)]

    def test_noise_is_kept_small(self, root: Path, folder: Path) -> None:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
        update(root, folder, 1, [{"id": "noise", "image": _base64(noise)}])

        assert Image.open(io.BytesIO(items(root).thumbnail("noise", 256))).size == (128, 128)


class TestDamage:
    def test_a_shard_that_has_changed_shows_nothing(self, root: Path, shards: str) -> None:
        path = Path(shards.replace("{0..1}", "1"))
        data = path.read_bytes()
        other = bytearray(gzip.decompress(data) if path.suffix == ".gz" else data)
        start = other.index(b"\x89PNG")
        other[start + 60] ^= 255
        path.write_bytes(gzip.compress(bytes(other)) if path.suffix == ".gz" else bytes(other))

        with pytest.raises(NoThumbnail, match=r"has changed since the index was built; build it again"):
            items(root).thumbnail("p/20", 32)

    def test_a_shard_that_is_gone_is_named(self, root: Path, shards: str) -> None:
        Path(shards.replace("{0..1}", "1")).unlink()

        with pytest.raises(NoThumbnail, match=r"a-1\.tar"):
            items(root).thumbnail("p/21", 31)

    def test_a_shard_outside_the_data_roots_is_refused(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))  # temporary files may be read, too
        monkeypatch.setenv(READABLE_ROOTS, json.dumps([str(tmp_path / "elsewhere")]))

        with pytest.raises(NoThumbnail, match="lies outside"):
            items(root).thumbnail("p/21", 30)

    def test_far_behind_the_beginning_of_a_compressed_shard(
        self, root: Path, shards: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(images, "SKIPPED_BYTES", 100)
        found, packed = items(root), shards.endswith("gz")

        assert found.view("p/19").has_thumbnail is not packed
        assert found.view("p/00").has_thumbnail
        if packed:
            with pytest.raises(NoThumbnail, match="only be read from its beginning"):
                found.thumbnail("p/19", 32)

    def test_an_index_of_an_older_version(self, root: Path) -> None:
        [segment] = newest_generation(root).segments
        with sqlite3.connect(root / f"indexes/gallery/segments/{segment.id}/items.sqlite") as database:
            database.executescript("DROP TABLE pictures; DROP TABLE shards")
        viewing._items.cache_clear()

        assert not items(root).view("p/03").has_thumbnail
        with pytest.raises(NoThumbnail, match="build it again"):
            items(root).thumbnail("p/03", 32)

    def test_an_older_index_stays_updatable(self, root: Path, folder: Path) -> None:
        self.test_an_index_of_an_older_version(root)
        update(root, folder, 1, vector_items(unit_vectors(20, 24)))

        assert not items(root).view("p/03").has_thumbnail


def test_a_compressed_shard_is_read_once_for_a_page(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = write_shards(tmp_path, packed=True)
    request_build(tmp_path / "store", folder, shards)
    assert run_job(tmp_path / "store") == 0
    opened: list[str] = []
    monkeypatch.setattr(images, "read_placed", lambda url, file: (opened.append(url), read_placed(url, file))[1])
    found = items(tmp_path / "store")

    for number in np.random.default_rng(0).permutation(20):
        assert shows(found.thumbnail(f"p/{number:02}", 33), number)
    assert len(opened) == 1


def test_questions_of_the_control_plane(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYCLIP_ARTIFACTS_ROOT", str(root))
    question: dict[str, Any] = {"index": "gallery", "stamp": str(root), "id": "p/03", "size": 32}

    item = item_or_problem(question, Diagnostics())
    assert json.loads(json.dumps(item))["item"]["has_thumbnail"] is True
    assert item_thumbnail_or_problem(question, Diagnostics())["jpeg"].startswith("/9j/")
    assert item_or_problem({**question, "id": "\ud800 no\x1b"}, Diagnostics())["code"] == "no_such_item"
    missing = item_or_problem({**question, "index": "nothing"}, Diagnostics())
    assert missing == {"missing": "index nothing has no finished build yet", "code": "no_such_item"}


def _base64(image: Image.Image) -> str:


    return base64.b64encode(encoded(image)).decode()
