"""Real pairs that are broken on purpose, with a teacher that knows them: each fault is named for what it is."""

import io
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tinyclip.schemas.datasets import DatasetReport
from tinyclip_workers.data.samples import Sample
from tinyclip_workers.data.shards import read_shard
from tinyclip_workers.datasets import registration, teacher_sample

from tests.workers import dataset_jobs as jobs
from tests.workers.datasets.pictures import encoded, shards_of

EMOJI = Path(__file__).parents[3] / "examples" / "emoji"
TEACHER = {"teacher": {"model": f"local-dir:{EMOJI / 'teachers' / 'vit'}"}}
COUNT = 288
SETTINGS: dict[str, Any] = {**TEACHER, "caption_key": "json.captions"}

pytestmark = pytest.mark.skipif(not EMOJI.exists(), reason="the emoji example is not here")


def read(split: str, count: int) -> Iterator[Sample]:
    return islice(read_shard(str(EMOJI / "data" / f"{split}-000000.tar.gz")), count)


def image(sample: Sample) -> Image.Image:
    return Image.open(io.BytesIO(sample["png"])).convert("RGB")


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, Any]]:
    """The first pairs of the emoji example; only key, image and document."""
    return [{"__key__": each["__key__"], "png": each["png"], "json": json.loads(each["json"])} for each in read("train", COUNT)]


@pytest.fixture
def report_on(tmp_path: Path) -> Callable[..., DatasetReport]:
    def register(samples: list[dict[str, Any]], **put: Any) -> DatasetReport:
        return jobs.register(tmp_path / "store", shards_of(tmp_path / "shards", samples, shards=3), **{**SETTINGS, **put})

    return register


Pairs = list[dict[str, Any]]
Report = Callable[..., DatasetReport]


def serious(report: DatasetReport) -> list[str]:
    return [finding.code for finding in report.findings if finding.severity != "info"]


def test_healthy_pairs_have_no_warning(pairs: Pairs, report_on: Report) -> None:
    report = report_on(pairs)

    assert serious(report) == []
    assert report.agreement is not None
    assert report.agreement.auc > 0.97
    assert report.agreement.pairs == COUNT
    assert sum(report.agreement.true_counts) == COUNT
    assert (len(report.agreement.bins), len(report.agreement.shuffled_counts)) == (21, 20)
    assert report.agreement.true_mean > report.agreement.shuffled_mean + 0.3


@pytest.mark.parametrize(
    ("shift", "where"),
    [(-1, "1 sample later"), (3, "3 samples earlier"), pytest.param(1, "1 sample earlier", marks=pytest.mark.long)],
)
def test_captions_shifted_by_samples(pairs: Pairs, report_on: Report, shift: int, where: str) -> None:
    samples = [{**sample, "json": pairs[(n + shift) % COUNT]["json"]} for n, sample in enumerate(pairs)]

    report = report_on(samples)

    assert serious(report) == ["captions_shifted"]
    assert where in report.findings[0].message


def test_identical_captions(pairs: Pairs, report_on: Report) -> None:
    report = report_on([{**sample, "json": {"captions": ["a nice emoji"]}} for sample in pairs])

    assert serious(report)[0] == "identical_captions"
    assert "low_agreement" not in serious(report)


def test_red_and_blue_exchanged(pairs: Pairs, report_on: Report) -> None:
    samples = [{**sample, "png": encoded(Image.fromarray(np.asarray(image(sample))[..., ::-1]))} for sample in pairs]

    report = report_on(samples)

    assert serious(report) == ["swapped_channels"]
    assert report.findings[0].severity == "error"


def test_a_third_of_the_images_black(pairs: Pairs, report_on: Report) -> None:
    black = encoded(Image.new("RGB", (64, 64)))

    report = report_on([{**sample, "png": black} if n % 3 == 0 else sample for n, sample in enumerate(pairs)])

    assert serious(report) == ["black_images"]
    assert report.findings[0].count == COUNT // 3


def test_validation_images_copied_into_training(pairs: Pairs, report_on: Report) -> None:
    copied = [{"__key__": f"copy-{n}", "png": s["png"], "json": json.loads(s["json"])} for n, s in enumerate(read("val", 60))]
    task = {"name": "new-style", "kind": "retrieval", "shards": str(EMOJI / "data" / "val-000000.tar.gz")}

    report = report_on([*pairs, *copied], tasks=[task])

    assert serious(report) == ["leakage"]
    assert "images of the task new-style are training images" in report.findings[0].message
    assert report.findings[0].count >= 60


@pytest.mark.parametrize(("key", "kind"), [("json.hexcode", "class or image identifiers"), ("json.number", "numbers")])
def test_a_caption_key_without_captions(pairs: Pairs, report_on: Report, key: str, kind: str) -> None:
    samples = [{**sample, "json": {**sample["json"], "number": str(sample["json"]["label"])}} for sample in pairs]

    report = report_on(samples, caption_key=key)

    assert serious(report) == ["wrong_caption_key"]
    assert f"source.caption_key {key} leads to {kind} instead of captions" in report.findings[0].message
    assert "json.captions" in report.findings[0].remedy


def test_captions_of_other_images(pairs: Pairs, report_on: Report) -> None:
    order = np.random.default_rng(0).permutation(COUNT)

    report = report_on([{**sample, "json": pairs[order[n]]["json"]} for n, sample in enumerate(pairs)])

    assert serious(report) == ["low_agreement"]
    assert report.findings[0].severity == "error"
    assert report.agreement is not None
    assert report.agreement.auc == pytest.approx(0.5, abs=0.06)


def test_where_selects_by_agreement(pairs: Pairs, report_on: Report, tmp_path: Path) -> None:
    wrong = [{**sample, "json": pairs[(n + 7) % COUNT]["json"]} if n % 2 else sample for n, sample in enumerate(pairs)]

    report = report_on(wrong, where={"agreement": {"min": 0.4}})

    assert report.usable == jobs.document(tmp_path / "store").pairs
    assert COUNT * 0.4 < report.usable < COUNT * 0.6
    assert serious(report) == []
    assert report.agreement is not None
    assert report.agreement.auc > 0.97


class TestLanguages:
    @pytest.fixture
    def translated(self, pairs: Pairs) -> Pairs:
        """Half as many English captions as others, which the teacher cannot read."""
        other = [f"{n} mots que personne ne comprend, {n * n}" for n in range(2)]
        return [{**sample, "json": {**sample["json"], "captions": {"en": sample["json"]["captions"], "fr": other}}}
                for sample in pairs[:240]]  # fmt: skip

    def test_the_teacher_reads_its_own(self, translated: Pairs, report_on: Report) -> None:
        report = report_on(translated, languages=["en", "fr"], teacher={**TEACHER["teacher"], "language": "en"})

        assert report.agreement is not None
        assert report.agreement.auc > 0.97

    def test_where_is_about_its_own(self, translated: Pairs, report_on: Report) -> None:
        options = {"languages": ["en", "fr"], "where": {"agreement": {"min": 0.4}}}

        found = report_on(translated, teacher={**TEACHER["teacher"], "language": "en"}, **options)

        assert found.usable > 200

    def test_without_a_language_it_reads_all(self, translated: Pairs, report_on: Report) -> None:
        report = report_on(translated, languages=["en", "fr"])

        assert report.agreement is not None
        assert report.agreement.auc < 0.95


def test_a_teacher_that_is_not_there_is_named(pairs: Pairs, tmp_path: Path) -> None:
    shards, teacher = shards_of(tmp_path / "shards", pairs[:4]), {"model": f"local-dir:{tmp_path / 'none'}"}

    failed = jobs.failure(tmp_path / "store", shards, **{**SETTINGS, "teacher": teacher})

    assert failed["data"]["pointer"] == "/teacher/model"


def test_pairs_that_an_earlier_attempt_has_encoded_are_used(
    pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = shards_of(tmp_path / "shards", pairs[:96], shards=3)
    jobs.register(tmp_path / "undisturbed", shards, **SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(registration, "build_report", lambda *arguments: 1 / 0)
        jobs.failure(tmp_path / "store", shards, **SETTINGS)

    encoded_again: list[int] = []
    monkeypatch.setattr(teacher_sample, "encode_shard", lambda *arguments: iter(encoded_again))
    jobs.request(tmp_path / "store", shards, attempt=2, **SETTINGS)
    with jobs.without_ray():
        assert jobs.run_job(tmp_path / "store", attempt=2) == 0

    assert jobs.files(tmp_path / "store") == jobs.files(tmp_path / "undisturbed")


def test_another_teacher_makes_another_report(pairs: Pairs, tmp_path: Path) -> None:
    shards = shards_of(tmp_path / "shards", pairs[:64])
    jobs.register(tmp_path / "store", shards, caption_key="json.captions")
    digest = jobs.document(tmp_path / "store").digest

    with jobs.without_ray():
        jobs.request(tmp_path / "store", shards, version=2, previous=digest, **SETTINGS)
        assert jobs.run_job(tmp_path / "store", version=2) == 0
        jobs.request(tmp_path / "store", shards, version=3, previous=digest, **SETTINGS)
        assert jobs.run_job(tmp_path / "store", version=3) == 0

    assert jobs.document(tmp_path / "store", version=2).digest == digest
    assert jobs.report(tmp_path / "store", version=2).agreement is not None
    assert jobs.events(tmp_path / "store", version=3)[-1]["data"] == {"unchanged": True}


def test_an_attempt_that_is_superseded_while_the_teacher_encodes_ends_silently(
    pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = shards_of(tmp_path / "shards", pairs[:64])
    encode = teacher_sample.encode_shard

    def superseded(*arguments: Any) -> Iterator[float]:
        jobs.request(tmp_path / "store", shards, attempt=2, **SETTINGS)
        yield from encode(*arguments)

    monkeypatch.setattr(teacher_sample, "encode_shard", superseded)
    jobs.request(tmp_path / "store", shards, **SETTINGS)

    with jobs.without_ray():
        assert jobs.run_job(tmp_path / "store") == 0

    assert {event["type"] for event in jobs.events(tmp_path / "store")} <= {"dataset.progress", "log"}
    assert not jobs.files(tmp_path / "store").keys() & {"report.json", "dataset.json"}
