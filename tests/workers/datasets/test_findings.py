"""Findings: what is wrong with a data set is named, counted and shown by example; a healthy one has none."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tinyclip.schemas.datasets import DatasetReport

from tests.workers import dataset_jobs as jobs
from tests.workers.datasets.pictures import caption, encoded, pairs, picture, shards_of

COUNT = 100
INPUT = {"image_size": 32}


@pytest.fixture(scope="module")
def healthy() -> list[dict[str, Any]]:
    return pairs(COUNT)


def report_on(folder: Path, samples: list[dict[str, Any]], **put: Any) -> DatasetReport:
    return jobs.register(folder / "store", shards_of(folder / "shards", samples), **{**INPUT, **put})


def spoilt(healthy: list[dict[str, Any]], every: int, **changes: Any) -> list[dict[str, Any]]:
    """Return the samples with every n-th one changed."""
    return [{**sample, **changes} if n % every == 0 else sample for n, sample in enumerate(healthy)]


def test_a_healthy_data_set_has_no_finding(tmp_path: Path, healthy: list[dict[str, Any]]) -> None:
    report = report_on(tmp_path, healthy)

    assert report.findings == []
    assert (report.samples, report.usable) == (COUNT, COUNT)
    assert report.caption_stats is not None
    assert (report.caption_stats.captions, report.caption_stats.distinct) == (COUNT, COUNT)
    assert report.languages == {"en": 1.0}


class TestUnusableSamples:
    @pytest.mark.parametrize(
        ("changes", "code", "detail"),
        [
            ({"png": encoded(picture(1))[:900]}, "unreadable_images", "truncated"),
            ({"png": encoded(picture(1).resize((400, 300)), "JPEG")[:-2000]}, "unreadable_images", "truncated"),
            ({"png": b"not an image"}, "unreadable_images", "no known format"),
            ({"txt": "  \n "}, "empty_captions", "is empty"),
            ({"txt": b"\xff\xfe"}, "unreadable_captions", "not UTF-8"),
        ],
        ids=["half a PNG", "half a JPEG", "no image", "spaces", "no UTF-8"],
    )
    def test_each_kind_is_counted(
        self, tmp_path: Path, healthy: list[dict[str, Any]], changes: dict[str, Any], code: str, detail: str
    ) -> None:
        report = report_on(tmp_path, spoilt(healthy, 10, **changes))

        found = jobs.finding(report, code)
        assert (found.count, found.share, found.severity) == (10, 0.1, "warning")
        assert [example["key"] for example in found.examples] == [f"p{n:05d}" for n in range(0, 50, 10)]
        assert detail in found.examples[0]["detail"]
        assert (report.usable, [each.code for each in report.findings]) == (90, [code])

    @pytest.mark.parametrize(("left_out", "code"), [("png", "missing_images"), ("txt", "missing_captions")])
    def test_missing_files(self, tmp_path: Path, healthy: list[dict[str, Any]], left_out: str, code: str) -> None:
        samples = [{k: v for k, v in s.items() if n % 10 or k != left_out} for n, s in enumerate(healthy)]

        report = report_on(tmp_path, samples)

        assert jobs.finding(report, code).count == 10


class TestImages:
    def test_black_ones(self, tmp_path: Path, healthy: list[dict[str, Any]]) -> None:
        black = encoded(Image.new("RGB", (48, 48), (3, 3, 3)), "JPEG")

        report = report_on(tmp_path, spoilt(healthy, 3, png=black))

        first = report.findings[0]
        assert (first.code, first.count, first.severity) == ("black_images", 34, "error")
        assert "34 of 100 (34%) samples have a black image" in first.message
        assert [each.code for each in report.findings] == ["black_images"]

    def test_blank_ones(self, tmp_path: Path, healthy: list[dict[str, Any]]) -> None:
        report = report_on(tmp_path, spoilt(healthy, 20, png=encoded(Image.new("RGB", (48, 48), (200, 120, 40)))))

        assert (jobs.finding(report, "blank_images").count, len(report.findings)) == (5, 1)

    @pytest.mark.parametrize("copy", ["same", "jpeg", "larger", "darker"])
    def test_near_duplicates(self, tmp_path: Path, healthy: list[dict[str, Any]], copy: str) -> None:
        copies = {
            "same": lambda image: encoded(image),
            "jpeg": lambda image: encoded(image, "JPEG", quality=75),
            "larger": lambda image: encoded(image.resize((120, 120), Image.Resampling.BICUBIC)),
            "darker": lambda image: encoded(image.point(lambda value: value * 0.95)),
        }
        samples = list(healthy)
        for n in range(0, COUNT, 10):
            samples[n + 1] = {**samples[n + 1], "png": copies[copy](picture(n))}

        found = jobs.finding(report_on(tmp_path, samples), "near_duplicate_images")

        assert found.count >= 9
        assert found.examples[0]["key"] == "p00001"
        assert " p00000 in " in found.examples[0]["detail"]
        assert "identical" in found.message if copy == "same" else copy != "darker" or "identical" not in found.message

    def test_small_ones(self, tmp_path: Path, healthy: list[dict[str, Any]]) -> None:
        report = report_on(tmp_path / "known", healthy, image_size=64)
        unknown = report_on(tmp_path / "unknown", healthy, image_size=None)

        found = jobs.finding(report, "small_images")
        assert (found.severity, found.count) == ("warning", COUNT)
        assert "shorter side of less than 64 pixels (median 48)" in found.message
        assert jobs.finding(unknown, "small_images").severity == "info"


class TestCaptions:
    def of(self, tmp_path: Path, healthy: list[dict[str, Any]], texts: list[str], **put: Any) -> DatasetReport:
        samples = [{**sample, "txt": texts[n % len(texts)].format(n=n)} for n, sample in enumerate(healthy)]
        return report_on(tmp_path, samples, **put)

    def test_identical_ones(self, tmp_path: Path, healthy: list[dict[str, Any]]) -> None:
        report = self.of(tmp_path, healthy, ["a nice photo of something"])

        assert report.findings[0].code == "identical_captions"
        assert report.findings[0].severity == "error"
        assert "“a nice photo of something” is that of 100 of 100 (100%) samples" in report.findings[0].message

    @pytest.mark.parametrize(
        ("text", "kind"),
        [
            ("{n}", "numbers"), ("n0{n:07d}", "class or image identifiers"), ("IMG_{n:04d}.JPG", "file names"),
            ("https://example.org/images/{n}.html", "addresses"),
        ],
    )  # fmt: skip
    def test_a_wrong_key(self, tmp_path: Path, healthy: list[dict[str, Any]], text: str, kind: str) -> None:
        report = self.of(tmp_path, healthy, [text])

        first = report.findings[0]
        assert (first.code, first.severity, first.count) == ("wrong_caption_key", "error", COUNT)
        assert f"source.caption_key txt leads to {kind} instead of captions" in first.message
        assert "json.caption holds words" in first.remedy

    def test_markup_and_addresses(self, tmp_path: Path, healthy: list[dict[str, Any]]) -> None:
        texts = [caption(1) + " {n}"] * 3 + ["<b>a cat</b> &amp; a dog, number {n}", "see {n} cats at http://cats.example"]

        report = self.of(tmp_path, healthy, texts)

        assert (jobs.finding(report, "html_captions").count, jobs.finding(report, "url_captions").count) == (20, 20)

    def test_cut_and_truncated_ones(self, tmp_path: Path, healthy: list[dict[str, Any]]) -> None:
        long = " ".join(f"tree{n}" for n in range(60))

        texts = ["the river and the town {n}…", f"{long} {{n}}", "a green hill {n}", "a blue hill {n}"]

        report = self.of(tmp_path, healthy, texts)

        assert (jobs.finding(report, "cut_captions").count, jobs.finding(report, "truncated_captions").count) == (25, 25)

    def test_boilerplate(self, tmp_path: Path, healthy: list[dict[str, Any]]) -> None:
        report = self.of(tmp_path, healthy, ["stock photo of thing {n} in a room", "the lake is {n} metres deep in summer"])

        found = jobs.finding(report, "boilerplate_captions")
        assert found.severity == "info"
        assert "50% begin with “stock photo of”" in found.message

    def test_few_different_ones(self, tmp_path: Path, healthy: list[dict[str, Any]]) -> None:
        report = self.of(tmp_path, healthy, [f"a {word} by the sea" for word in ("cat", "dog", "bird", "boat") * 6])

        assert jobs.finding(report, "frequent_captions").count == 25
        assert "there are 4 different ones" in jobs.finding(report, "duplicate_captions").message

    def test_languages_that_the_tokenizer_does_not_cover(self, tmp_path: Path, healthy: list[dict[str, Any]]) -> None:
        texts = ["Чёрная кошка номер {n} спит на диване", "a black cat number {n} sleeps on the sofa", "一只黑猫在沙发上睡觉 {n}"]

        report = self.of(tmp_path, healthy, texts)

        found = jobs.finding(report, "uncovered_languages")
        assert (found.severity, found.count) == ("error", 67)
        assert {"ru", "zh", "en"} <= report.languages.keys()

    def test_imbalance_of_the_distinct_key(self, tmp_path: Path, healthy: list[dict[str, Any]]) -> None:
        samples = [{**sample, "json": {"concept": str(n if n % 2 else 0)}} for n, sample in enumerate(healthy)]

        found = jobs.finding(report_on(tmp_path, samples, distinct_key="json.concept"), "imbalance")

        assert (found.severity, found.count) == ("warning", 50)
        assert "json.concept has 51 values" in found.message


class TestLeakage:
    TASK = {"kind": "retrieval", "name": "new-pictures"}

    def test_validation_images_among_the_pairs(self, tmp_path: Path, healthy: list[dict[str, Any]]) -> None:
        shards = shards_of(tmp_path / "val", pairs(40, start=COUNT), shards=1)
        copied = [{**sample, "__key__": f"copy{n}"} for n, sample in enumerate(pairs(10, start=COUNT))]

        report = report_on(tmp_path, [*healthy, *copied], tasks=[{**self.TASK, "shards": shards}])

        first = report.findings[0]
        assert (first.code, first.severity, first.count) == ("leakage", "error", 10)
        assert "10 of 40 (25%) images of the task new-pictures are training images" in first.message
        assert first.examples[0]["key"] == "copy0"
        assert first.examples[0]["detail"] == "identical to p00100 of the task"

    def test_none(self, tmp_path: Path, healthy: list[dict[str, Any]]) -> None:
        shards = shards_of(tmp_path / "val", pairs(40, start=COUNT), shards=1)

        assert report_on(tmp_path, healthy, tasks=[{**self.TASK, "shards": shards}]).findings == []

    def test_held_out_images_are_no_training_images(self, tmp_path: Path, healthy: list[dict[str, Any]]) -> None:
        shards = shards_of(tmp_path / "shards", healthy)
        task = {**self.TASK, "shards": shards, "subset": "holdout"}

        assert jobs.register(tmp_path / "store", shards, holdout=0.3, tasks=[task], **INPUT).findings == []

    def test_a_folder_in_the_layout_of_clip_benchmark(self, tmp_path: Path, healthy: list[dict[str, Any]]) -> None:
        folder = tmp_path / "benchmark"
        for name, text in (("dataset_type.txt", "retrieval"), ("test/nshards.txt", "1")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        shards_of(folder / "test", healthy[:20], shards=1)
        (folder / "test" / "000000.tar").rename(folder / "test" / "0.tar")

        report = report_on(tmp_path, healthy, tasks=[{**self.TASK, "shards": str(folder)}])

        assert jobs.finding(report, "leakage").count == 20

    def test_a_task_without_its_shards_is_refused(self, tmp_path: Path, healthy: list[dict[str, Any]]) -> None:
        shards = shards_of(tmp_path / "shards", healthy)

        failed = jobs.failure(tmp_path / "store", shards, tasks=[{**self.TASK, "shards": str(tmp_path / "no.tar")}])

        assert failed["data"]["pointer"] == "/tasks/0/shards"
        assert "task new-pictures: there is no " in failed["message"]
