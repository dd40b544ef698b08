"""Captions from a file are joined to the samples by key, and what does not fit is a finding."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tinyclip.artifacts.paths import dataset_version
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.datasets import DatasetReport
from tinyclip_workers.data.index import joining
from tinyclip_workers.data.index.dataset_index import open_index
from tinyclip_workers.datasets.captions import joined_file
from tinyclip_workers.datasets.captions.checks import tokenizer_of

from tests.workers import dataset_jobs as jobs
from tests.workers.datasets.pictures import pairs, shards_of

COUNT = 40


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return shards_of(tmp_path_factory.mktemp("shards"), pairs(COUNT))


def entries(count: int = COUNT) -> list[dict[str, Any]]:
    return [{"key": f"p{n:05d}", "captions": [f"synthetic text {n} of one kind", f"text {n} of another"]} for n in range(count)]


def write_lines(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return str(path)


def joined(root: Path) -> dict[str, list[str]]:
    """Return the captions from the file by key."""
    index = open_index(ArtifactsStore(str(root)), dataset_version(jobs.NAME, 1), jobs.document(root).digest)
    samples = [index.load_samples(shard) for shard in range(len(index.shards))]
    return {each.key(row): each.more_captions(row) for each in samples for row in range(len(each))}


@pytest.mark.parametrize("format", ["lines", "parquet"])
def test_they_are_joined_by_key(tmp_path: Path, shards: str, format: str) -> None:
    rows = entries()[::-1]  # in any order
    address = str(tmp_path / "captions.parquet")
    if format == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), address)
    else:
        address = write_lines(tmp_path / "captions.jsonl", rows)

    report = jobs.register(tmp_path / "store", shards, captions=address, image_size=32)

    assert joined(tmp_path / "store") == {row["key"]: row["captions"] for row in rows}
    assert report.caption_stats is not None
    assert (report.caption_stats.captions, report.caption_stats.per_sample) == (3 * COUNT, 3.0)
    assert report.findings == []


def test_what_does_not_fit_is_reported(tmp_path: Path, shards: str) -> None:
    rows = [
        *entries(30), {"key": "nobody", "captions": ["a text"]}, "{not json", {"key": 7, "captions": ["x"]}, {"key": "p00003"},
        {"key": "p00000", "captions": "one more"}, {"key": "p00004", "captions": [" "]},
    ]  # fmt: skip
    address = write_lines(tmp_path / "captions.jsonl", rows)

    report = jobs.register(tmp_path / "store", shards, captions=address, image_size=32)

    unknown, malformed = jobs.finding(report, "unknown_caption_keys"), jobs.finding(report, "malformed_captions")
    assert (unknown.count, unknown.examples[0]["key"], unknown.severity) == (1, "nobody", "warning")
    assert malformed.count == 4
    assert [example["detail"].split(" ")[3] for example in malformed.examples] == ["32", "33", "34", "36"]
    found = joined(tmp_path / "store")
    assert found["p00000"] == ["synthetic text 0 of one kind", "text 0 of another", "one more"]
    assert found["p00035"] == []


def test_a_repeated_join_has_the_same_result(tmp_path: Path, shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = write_lines(tmp_path / "captions.jsonl", entries())
    jobs.register(tmp_path / "undisturbed", shards, captions=address)
    with monkeypatch.context() as patch:
        patch.setattr(joining.Captions, "unused", lambda self: 1 / 0)  # after some shards were written
        jobs.failure(tmp_path / "store", shards, captions=address)

    jobs.request(tmp_path / "store", shards, captions=address, attempt=2)
    with jobs.without_ray():
        assert jobs.run_job(tmp_path / "store", attempt=2) == 0

    assert jobs.files(tmp_path / "store") == jobs.files(tmp_path / "undisturbed")


def test_other_captions_are_another_version(tmp_path: Path, shards: str) -> None:
    one = jobs.register(tmp_path / "a", shards, captions=write_lines(tmp_path / "captions.jsonl", entries()))
    two = jobs.register(tmp_path / "b", shards, captions=write_lines(tmp_path / "captions.jsonl", entries(39)))

    assert one.usable == two.usable
    assert jobs.document(tmp_path / "a").digest != jobs.document(tmp_path / "b").digest


@pytest.mark.parametrize("content", [b"", b"PAR1 but not really", b"\xff\xfe\x00binary\n" * 3])
def test_a_file_of_another_kind_ends_no_job_without_a_reason(tmp_path: Path, shards: str, content: bytes) -> None:
    path = tmp_path / "captions"
    path.write_bytes(content)

    jobs.request(tmp_path / "store", shards, captions=str(path))
    with jobs.without_ray():
        status = jobs.run_job(tmp_path / "store")

    if content.startswith(b"PAR1"):
        assert status == 1
        assert jobs.events(tmp_path / "store")[-1]["data"]["pointer"] == "/source/captions"
    else:
        assert status == 0


def test_a_missing_file_is_named(tmp_path: Path, shards: str) -> None:
    failed = jobs.failure(tmp_path, shards, captions=str(tmp_path / "none.jsonl"))

    assert failed["data"]["pointer"] == "/source/captions"
    assert "none.jsonl" in failed["message"]


def test_memory_does_not_grow_with_the_file(tmp_path: Path, shards: str) -> None:
    path = tmp_path / "captions.jsonl"
    with path.open("w") as file:
        for n in range(20_000):
            file.write(json.dumps({"key": f"other{n}", "captions": [f"a text of some length, number {n} " * 15]}) + "\n")
    jobs.register(tmp_path / "first", shards)
    tokenizer_of(77)

    tracemalloc.start()
    try:
        store = ArtifactsStore(str(tmp_path / "first"))
        found = joined_file.join_captions(store, dataset_version(jobs.NAME, 1), str(path), ["a", "b"], 77, lambda message: None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert found.unknown == 20_000
    assert peak < path.stat().st_size / 3


class TestLanguages:
    def rows(self) -> list[dict[str, Any]]:
        german = [{"key": f"p{n:05d}", "captions": {"de": [f"Text {n}", f"{n} Texte"], "fr": f"texte {n}"}} for n in range(30)]
        return [*german, {"key": "p00030", "captions": {"de": "noch ein Text"}}]

    def register(self, tmp_path: Path, shards: str, *languages: str) -> DatasetReport:
        tmp_path.mkdir(exist_ok=True)
        address = write_lines(tmp_path / "captions.jsonl", self.rows())
        return jobs.register(tmp_path / "store", shards, captions=address, languages=list(languages), image_size=32)

    def test_the_report_counts_captions_and_missing_ones_by_language(self, tmp_path: Path, shards: str) -> None:
        report = self.register(tmp_path, shards, "en", "de", "fr")

        assert report.caption_stats is not None
        assert report.caption_stats.languages == {"en": COUNT, "de": 61, "fr": 30}
        missing = [(each.count, each.severity, each.message) for each in report.findings if each.code == "missing_languages"]
        assert [(count, severity) for count, severity, _ in missing] == [(COUNT - 30, "info"), (COUNT - 31, "info")]
        assert "pairs have no caption in fr" in missing[0][2]

    def test_the_index_has_the_language_of_each_caption(self, tmp_path: Path, shards: str) -> None:
        self.register(tmp_path, shards, "en", "de", "fr")

        store = ArtifactsStore(str(tmp_path / "store"))
        index = open_index(store, dataset_version(jobs.NAME, 1), jobs.document(tmp_path / "store").digest)
        rows = index.load_samples(0)
        assert rows.more_languages(0) == ["de", "de", "fr"]
        assert index.lacking(np.arange(index.pairs)).tolist().count(0b110) == COUNT - 31

    def test_captions_of_other_languages_are_not_used(self, tmp_path: Path, shards: str) -> None:
        report = self.register(tmp_path, shards, "en", "de")

        assert joined(tmp_path / "store")["p00000"] == ["Text 0", "0 Texte"]
        assert "(fr: 30)" in jobs.finding(report, "other_languages").message

    def test_without_languages_all_are_captions_alike(self, tmp_path: Path, shards: str) -> None:
        self.register(tmp_path, shards)

        assert joined(tmp_path / "store")["p00000"] == ["Text 0", "0 Texte", "texte 0"]

    def test_languages_are_part_of_the_version(self, tmp_path: Path, shards: str) -> None:
        self.register(tmp_path / "a", shards, "en", "de")
        self.register(tmp_path / "b", shards, "en", "fr")

        one, two = (jobs.document(tmp_path / name / "store") for name in ("a", "b"))
        assert one.digest != two.digest
        assert one.source.languages == ["en", "de"]

    def test_a_map_of_parquet_is_by_language(self, tmp_path: Path, shards: str) -> None:
        kind = pa.schema([("key", pa.string()), ("captions", pa.map_(pa.string(), pa.list_(pa.string())))])
        table = pa.table({"key": ["p00000"], "captions": [[("de", ["ein Text"]), ("fr", ["un texte"])]]}, schema=kind)
        pq.write_table(table, tmp_path / "captions.parquet")

        jobs.register(tmp_path / "store", shards, captions=str(tmp_path / "captions.parquet"), languages=["en", "fr"])

        assert joined(tmp_path / "store")["p00000"] == ["un texte"]
