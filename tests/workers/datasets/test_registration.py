"""Registrations: what a version has, which samples it selects, and what is refused."""

import gzip
import io
from pathlib import Path
from typing import Any

import pytest
from tinyclip.artifacts.paths import dataset_samples, dataset_version
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.spec import TrainData
from tinyclip_workers.data.index.dataset_index import open_index
from tinyclip_workers.data.index.rows import Use, from_parquet
from tinyclip_workers.data.samples import is_held_out
from tinyclip_workers.data.shard_files import describe_shard
from tinyclip_workers.data.shards import read_placed
from tinyclip_workers.datasets.scan import tasks
from tinyclip_workers.datasets.scan.examination import ExaminationSettings
from tinyclip_workers.datasets.scan.tasks import Registration, scan_shards

from tests.workers import dataset_jobs as jobs
from tests.workers.shapes_data import write_shards
from tests.workers.shards import color_samples, write_shard

SHARDS, PAIRS = 3, 20


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shards"), shards=SHARDS, pairs=PAIRS)


def uses(root: Path, shard: int = 0) -> list[Use]:
    path = dataset_samples(dataset_version(jobs.NAME, 1), shard)
    table = from_parquet(ArtifactsStore(str(root)).read_bytes(path))
    return [Use(use) for use in table.column("use").to_pylist()]


class TestVersion:
    def test_its_index_leads_to_every_sample(self, tmp_path: Path, shards: str) -> None:
        jobs.register(tmp_path, shards)

        index = open_index(ArtifactsStore(str(tmp_path)), dataset_version(jobs.NAME, 1), jobs.document(tmp_path).digest)
        assert [shard.samples for shard in index.shards] == [PAIRS] * SHARDS
        samples = index.load_samples(1)
        data = Path(index.shards[1].url).read_bytes()[samples.offset_N[7] :][: samples.length_N[7]]
        [placed] = read_placed("", io.BytesIO(data))
        assert placed.sample["__key__"] == samples.key(7) == "train-1-0007"

    def test_its_document(self, tmp_path: Path, shards: str) -> None:
        jobs.register(tmp_path, shards, caption_key="json.captions", holdout=0.2)

        version = jobs.document(tmp_path)
        held_out = sum(is_held_out(f"train-{shard}-{n:04d}", 0.2) for shard in range(SHARDS) for n in range(PAIRS))
        assert (version.samples, version.pairs, version.shards) == (SHARDS * PAIRS, SHARDS * PAIRS - held_out, SHARDS)
        assert not version.compressed
        assert version.caption_stats is not None
        assert (version.caption_stats.captions, version.caption_stats.per_sample) == (2 * SHARDS * PAIRS, 2.0)
        assert version.image_sizes is not None
        assert version.image_sizes.width == {"min": 32, "p5": 32, "median": 32, "p95": 32, "max": 32}
        assert version.image_sizes.smaller_than_input == 1.0
        last = jobs.events(tmp_path)[-1]
        assert (last["type"], last["data"]["digest"]) == ("dataset.finished", version.digest)

    def test_compressed_shards_are_marked(self, tmp_path: Path, shards: str) -> None:
        packed = tmp_path / "a.tar.gz"
        packed.write_bytes(gzip.compress(Path(shards.replace("*", "000000")).read_bytes()))

        jobs.register(tmp_path / "store", str(packed))

        assert jobs.document(tmp_path / "store").compressed

    def test_a_copy_of_the_shards_has_the_same_digest(self, tmp_path: Path, shards: str) -> None:
        copies = write_shards(tmp_path / "copies", shards=SHARDS, pairs=PAIRS)

        jobs.register(tmp_path / "one", shards)
        jobs.register(tmp_path / "two", copies)

        assert jobs.document(tmp_path / "one").digest == jobs.document(tmp_path / "two").digest

    def test_other_settings_have_another_digest(self, tmp_path: Path, shards: str) -> None:
        jobs.register(tmp_path / "one", shards)
        jobs.register(tmp_path / "two", shards, caption_key="json.captions")

        assert jobs.document(tmp_path / "one").digest != jobs.document(tmp_path / "two").digest


class TestUnchanged:
    def test_the_same_data_is_no_new_version(self, tmp_path: Path, shards: str) -> None:
        jobs.register(tmp_path, shards)

        jobs.request(tmp_path, shards, version=2, previous=jobs.document(tmp_path).digest)
        with jobs.without_ray():
            assert jobs.run_job(tmp_path, version=2) == 0

        assert jobs.events(tmp_path, version=2)[-1]["data"] == {"unchanged": True}
        assert jobs.files(tmp_path, version=2) == {}

    def test_a_changed_shard_is_a_new_version(self, tmp_path: Path) -> None:
        path = write_shards(tmp_path / "shards", shards=2, pairs=4)
        jobs.register(tmp_path / "store", path)
        write_shards(tmp_path / "shards", shards=1, pairs=5)

        jobs.request(tmp_path / "store", path, version=2, previous=jobs.document(tmp_path / "store").digest)
        with jobs.without_ray():
            assert jobs.run_job(tmp_path / "store", version=2) == 0

        assert jobs.document(tmp_path / "store", version=2).samples == 9


class TestWhere:
    @pytest.mark.parametrize(
        ("where", "training"),
        [
            ({"odd": True}, [n for n in range(8) if n % 2]),
            ({"name": "red"}, [0, 4]),
            ({"label": 1, "odd": True}, [1, 5]),
            ({"short_side": {"min": 32}}, list(range(8))),
            ({"short_side": {"min": 33}, "odd": True}, []),
            ({"aspect_ratio": {"max": 1.5}, "name": "blue"}, [2, 6]),
        ],
    )
    def test_it_selects_samples(self, tmp_path: Path, where: dict[str, Any], training: list[int]) -> None:
        shard = write_shard(tmp_path / "a.tar", color_samples(8))

        if not training:
            failed = jobs.failure(tmp_path / "store", shard, where=where)
            assert failed["data"]["pointer"] == "/source/where"
            assert "where excludes all of the 8 samples" in failed["message"]
            return
        jobs.register(tmp_path / "store", shard, where=where)

        found = uses(tmp_path / "store")
        assert [number for number, use in enumerate(found) if use is Use.TRAINING] == training
        assert all(use is Use.EXCLUDED for number, use in enumerate(found) if number not in training)

    def test_excluded_samples_are_not_complained_about(self, tmp_path: Path) -> None:
        broken = {"__key__": "bad", "png": b"no image", "txt": "a square", "json": {"odd": False}}
        shard = write_shard(tmp_path / "a.tar", [*color_samples(8), broken])

        report = jobs.register(tmp_path / "store", shard, where={"odd": True})

        assert (report.samples, report.usable) == (9, 4)
        assert [finding.code for finding in report.findings if finding.code == "unreadable_images"] == []


class TestShards:
    def test_missing_ones_are_named(self, tmp_path: Path, shards: str) -> None:
        pattern = shards.replace("*", "{000000..000004}")

        failed = jobs.failure(tmp_path, pattern)

        assert failed["data"]["pointer"] == "/source/shards"
        assert "2 of 5 shards do not exist: " in failed["message"]
        assert "train-000003.tar" in failed["message"]

    def test_a_pattern_without_a_match_is_refused(self, tmp_path: Path) -> None:
        failed = jobs.failure(tmp_path, str(tmp_path / "*.tar"))

        assert "no shard matches" in failed["message"]

    def test_a_truncated_one_keeps_the_samples_before(self, tmp_path: Path) -> None:
        pattern = write_shards(tmp_path / "shards", shards=2, pairs=10)
        first = tmp_path / "shards" / "train-000000.tar"
        first.write_bytes(first.read_bytes()[:15_000])

        report = jobs.register(tmp_path / "store", pattern)

        found = jobs.finding(report, "broken_shards")
        assert 10 < report.samples < 20
        assert found.severity == "warning"
        detail = f"{report.samples - 10} samples before: it is truncated"
        assert found.examples == [{"key": "", "shard": str(first), "detail": detail}]

    def test_all_broken_is_a_failure(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar").write_bytes(b"no tar" * 1000)

        failed = jobs.failure(tmp_path / "store", str(tmp_path / "*.tar"))

        assert "none of the 1 shards can be read" in failed["message"]
        assert "not a tar" in failed["message"]

    def test_a_wrong_image_key_is_a_failure_that_names_it(self, tmp_path: Path, shards: str) -> None:
        failed = jobs.failure(tmp_path, shards, image_key=["jpeg"])

        assert failed["data"]["pointer"] == "/source/image_key"
        assert "none of the 60 samples is usable" in failed["message"]

    def test_captions_that_are_numbers_are_a_failure_that_names_the_key(self, tmp_path: Path, shards: str) -> None:
        failed = jobs.failure(tmp_path, shards, caption_key="json.color")

        assert failed["data"]["pointer"] == "/source/caption_key"
        assert "its caption under json.color is a number, not text" in failed["message"]


class TestStores:
    """A store that fails while a shard is read is tried again."""

    @pytest.fixture(autouse=True)
    def no_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tasks, "TRY_AGAIN_AFTER", (0.0, 0.0))

    def failing(self, monkeypatch: pytest.MonkeyPatch, times: int, error: OSError) -> list[str]:
        """Let the first reads of each shard fail after some samples."""
        tries: list[str] = []
        real = tasks.scan_steps

        def scan_steps(url: str, *arguments: Any) -> Any:
            tries.append(url)
            if tries.count(url) <= times:
                raise error
            return real(url, *arguments)

        monkeypatch.setattr(tasks, "scan_steps", scan_steps)
        return tries

    def test_one_that_fails_twice(self, tmp_path: Path, shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
        tries = self.failing(monkeypatch, 2, ConnectionResetError("reset"))

        report = jobs.register(tmp_path, shards)

        assert len(tries) == 3 * SHARDS
        assert (report.usable, [finding.code for finding in report.findings if finding.code == "broken_shards"]) == (60, [])

    def test_one_that_always_fails(self, tmp_path: Path, shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failing(monkeypatch, 3, ConnectionResetError("reset"))

        assert "none of the 3 shards can be read" in jobs.failure(tmp_path, shards)["message"]

    def test_a_shard_that_changes_while_it_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pattern = write_shards(tmp_path / "shards", shards=1, pairs=4)
        real = tasks.scan_steps

        def scan_steps(url: str, *arguments: Any) -> Any:
            yield from iter(())
            scanned = yield from real(url, *arguments)
            with Path(url).open("ab") as file:
                file.write(b"\0" * 512)
            return scanned

        monkeypatch.setattr(tasks, "scan_steps", scan_steps)

        assert "was changed while it was read" in jobs.failure(tmp_path / "store", pattern)["message"]


class TestAttempts:
    def test_parts_of_a_changed_shard_are_made_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pattern = write_shards(tmp_path / "shards", shards=2, pairs=4)
        jobs.request(tmp_path / "store", pattern)
        with jobs.without_ray(), monkeypatch.context() as patch:
            patch.setattr("tinyclip_workers.datasets.registration.write_index", lambda *arguments: 1 / 0)
            assert jobs.run_job(tmp_path / "store") == 1
        write_shards(tmp_path / "shards", shards=1, pairs=7)

        jobs.request(tmp_path / "store", pattern, attempt=2)
        with jobs.without_ray():
            assert jobs.run_job(tmp_path / "store", attempt=2) == 0

        assert jobs.document(tmp_path / "store").samples == 11

    def test_a_removed_request_ends_the_job_silently(self, tmp_path: Path, shards: str) -> None:
        with jobs.without_ray():
            assert jobs.run_job(tmp_path) == 0

        assert jobs.events(tmp_path) == []

    def test_progress_is_by_bytes(self, tmp_path: Path) -> None:
        pattern = write_shards(tmp_path / "shards", shards=1, pairs=4)
        write_shards(tmp_path / "shards", shards=1, pairs=60, name="train-000001")
        jobs.request(tmp_path, pattern)
        urls = sorted(str(path) for path in (tmp_path / "shards").iterdir())
        files = [describe_shard(url) for url in urls]
        train = TrainData(shards=pattern)
        reported: list[tuple[int, float]] = []

        with jobs.without_ray():
            registration = Registration(str(tmp_path), jobs.NAME, 1, 1, ExaminationSettings(train))
            scan_shards(registration, urls, files, lambda finished, share: reported.append((finished, share)))

        total = sum(file.bytes for file in files)
        assert (1, files[0].bytes / total) in reported
        assert reported[-1] == (2, 1.0)
        assert reported == sorted(reported)
