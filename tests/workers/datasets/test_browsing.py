"""Samples of a version for people: pages with captions, and thumbnails, read at a bounded cost."""

import gzip
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tinyclip.addresses import READABLE_ROOTS
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import DatasetSample, SampleUse
from tinyclip_workers.datasets import browsing
from tinyclip_workers.datasets.browsing import Browser, NoSuchSample
from tinyclip_workers.plan.diagnostics import Diagnostics
from tinyclip_workers.plan.samples import samples_or_problem, thumbnail_or_problem

from tests.workers.registered import DATASET, register
from tests.workers.shards import color_samples, png, write_shard


def browser(folder: Path, **more: Any) -> Browser:
    """Register the shards of a folder, and browse them."""
    register(ArtifactsStore(str(folder / "store")), f"{folder}/*.tar*", **more)
    return Browser(str(folder / "store"), DATASET, 1)


def every(found: Browser, limit: int, use: SampleUse | None = None) -> tuple[list[DatasetSample], int]:
    """Return all samples, and how many pages they took."""
    items: list[DatasetSample] = []
    next: int | None = 0
    pages = 0
    while next is not None:
        page = found.page(next, limit, use)
        items += page.items
        next, pages = page.next, pages + 1
        assert pages < 100
    return items, pages


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shard(tmp_path / "a.tar", color_samples(5))
    broken = color_samples(4, start=5)
    broken[1]["png"] = b"no image"
    write_shard(tmp_path / "b.tar", broken)
    return tmp_path


class TestPages:
    @pytest.mark.parametrize("limit", [1, 3, 5, 100])
    def test_every_sample_is_on_one_page_in_order(self, folder: Path, limit: int) -> None:
        items, _ = every(browser(folder), limit)

        assert [each.number for each in items] == list(range(9))
        assert [each.key for each in items] == [f"s{number:04d}" for number in range(9)]
        assert [each.captions for each in items] == [[sample["txt"]] for sample in color_samples(9)]

    def test_an_unusable_sample_has_the_reason(self, folder: Path) -> None:
        [sample], _ = every(browser(folder), 5, SampleUse.UNUSABLE)

        assert (sample.number, sample.key, sample.width) == (6, "s0006", 0)
        assert "not a readable image" in (sample.problem or "")

    def test_held_out_samples_are_found_and_joined_captions_shown(self, folder: Path) -> None:
        found = browser(folder, holdout=0.4, more_captions={"s0002": ["a synthetic caption"]})

        held_out, _ = every(found, 2, SampleUse.HELD_OUT)
        training, _ = every(found, 2, SampleUse.TRAINING)

        assert held_out
        assert sorted(each.number for each in [*held_out, *training]) == [0, 1, 2, 3, 4, 5, 7, 8]
        [second] = [each for each in [*held_out, *training] if each.key == "s0002"]
        assert second.captions == [color_samples(3)[2]["txt"], "a synthetic caption"]

    def test_behind_the_last_sample_there_is_nothing(self, folder: Path) -> None:
        assert browser(folder).page(9, 5) == browsing.SamplePage([], None)
        assert browser(folder).page(10**12, 5) == browsing.SamplePage([], None)

    def test_a_page_reads_a_limited_number_of_bytes(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(browsing, "PAGE_BYTES", 8000)

        items, pages = every(browser(folder), 100)

        assert ([each.number for each in items], pages > 3) == (list(range(9)), True)

    def test_a_page_has_a_limited_number_of_reads_and_of_shards(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for number in range(6):
            write_shard(folder / f"c{number}.tar", color_samples(2, start=10 + 2 * number))
        monkeypatch.setattr(browsing, "READS", 1)
        monkeypatch.setattr(browsing, "LOOKED_SHARDS", 2)

        training, pages = every(browser(folder), 100, SampleUse.TRAINING)
        _, without_any = every(browser(folder), 100, SampleUse.EXCLUDED)

        assert (len(training), pages) == (20, 9)
        assert without_any == 4

    def test_long_captions_are_shortened(self, tmp_path: Path) -> None:
        samples = [{"__key__": "a", "png": png((1, 2, 3)), "json": {"c": ["x" * 3000] * 30}}]
        write_shard(tmp_path / "a.tar", samples)

        [sample], _ = every(browser(tmp_path, caption_key="json.c"), 5)

        assert [len(caption) for caption in sample.captions] == [browsing.SHOWN_CHARACTERS] * browsing.SHOWN_CAPTIONS


class TestShards:
    def test_a_compressed_shard_is_read_from_its_beginning(self, tmp_path: Path) -> None:
        write_shard(tmp_path / "a.tar", color_samples(5))
        (tmp_path / "b.tar.gz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
        (tmp_path / "a.tar").unlink()

        items, _ = every(browser(tmp_path), 2)

        assert [each.captions for each in items] == [[sample["txt"]] for sample in color_samples(5)]

    def test_far_behind_its_beginning_only_the_index_is_shown(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_shard(tmp_path / "a.tar", color_samples(5))
        (tmp_path / "b.tar.gz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
        (tmp_path / "a.tar").unlink()
        monkeypatch.setattr(browsing, "SKIPPED_BYTES", 100)

        items, _ = every(browser(tmp_path), 1)

        assert [len(each.captions) for each in items] == [1, 0, 0, 0, 0]
        assert "can only be read from its beginning" in (items[4].unread or "")

    @pytest.mark.parametrize("change", ["removed", "changed"])
    def test_a_shard_that_is_not_the_registered_one_shows_the_index_and_why(self, folder: Path, change: str) -> None:
        found = browser(folder)
        (folder / "a.tar").unlink()
        if change == "changed":
            write_shard(folder / "a.tar", color_samples(5, start=50))

        items, _ = every(found, 100)

        assert [each.key for each in items] == [f"s{number:04d}" for number in range(9)]
        assert all(each.unread and "a.tar" in each.unread and not each.captions for each in items[:5])
        assert all(each.unread is None for each in items[5:])

    def test_an_address_outside_the_data_roots_is_not_read(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = browser(folder)
        monkeypatch.setenv(READABLE_ROOTS, '["/elsewhere"]')

        items, _ = every(found, 100)

        assert all(each.unread and not each.captions for each in items)
        with pytest.raises(NoSuchSample, match="cannot be read"):
            found.thumbnail("s0000", 0, 64)


class TestThumbnail:
    def test_it_is_a_small_jpeg_of_the_image(self, folder: Path) -> None:
        samples = [{"__key__": "a/wide one", "png": _png(400, 100, (200, 30, 30)), "txt": "wide"}]
        write_shard(folder / "c.tar", samples)

        image = Image.open(io.BytesIO(browser(folder).thumbnail("a/wide one", None, 64)))

        assert (image.format, image.size) == ("JPEG", (64, 16))
        assert max(abs(a - b) for a, b in zip(image.getpixel((32, 8)), (200, 30, 30), strict=True)) < 6

    def test_a_number_finds_it_at_once_and_must_fit(self, folder: Path) -> None:
        found = browser(folder)

        assert found.thumbnail("s0007", 7, 64) == found.thumbnail("s0007", None, 64)
        for key, number in (("s0007", 6), ("s0007", 9), ("s0007", 10**12)):
            with pytest.raises(NoSuchSample, match=f"sample {number} of {DATASET}@1 is not s0007"):
                found.thumbnail(key, number, 64)

    def test_without_a_number_only_the_first_shards_are_searched(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(browsing, "LOOKED_SHARDS", 1)

        with pytest.raises(NoSuchSample, match="in its first shards; give its number"):
            browser(folder).thumbnail("s0007", None, 64)

    @pytest.mark.parametrize("key", ["nothing", "\ud800", "", "s0006"])
    def test_without_an_image_it_is_refused_with_the_reason(self, folder: Path, key: str) -> None:
        with pytest.raises(NoSuchSample, match=r"has no (sample|image)"):
            browser(folder).thumbnail(key, None, 64)


class TestAnswers:
    @pytest.fixture(autouse=True)
    def root(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TINYCLIP_ARTIFACTS_ROOT", str(folder / "store"))
        browser(folder)

    def test_pages_and_thumbnails(self) -> None:
        where = {"dataset": DATASET, "version": 1}

        page = samples_or_problem({**where, "start": 7, "limit": 1, "use": "training"}, Diagnostics())
        thumbnail = thumbnail_or_problem({**where, "key": "s0001", "number": None, "size": 32}, Diagnostics())

        assert ([item["number"] for item in page["items"]], page["next"]) == ([7], 8)
        assert thumbnail["jpeg"].startswith("/9j/")

    def test_what_is_missing_is_named(self) -> None:
        question = {"dataset": DATASET, "version": 2, "start": 0, "limit": 1, "use": None}

        assert list(samples_or_problem(question, Diagnostics())) == ["missing"]


def _png(width: int, height: int, color: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), color).save(file, "PNG")
    return file.getvalue()
