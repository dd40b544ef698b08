"""No sample, however malformed, ends a registration, and the good ones around it are registered."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tinyclip.artifacts.paths import dataset_samples, dataset_version
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip_workers.data.index.rows import Use, from_parquet

from tests.workers import dataset_jobs as jobs
from tests.workers.data.test_malformed_samples import HOSTILE, KEY, MALFORMED, write

SETTINGS = {"image_key": ["png"], "caption_key": KEY, "distinct_key": "json.meta.id"}


def good_samples(root: Path) -> set[str]:
    path = dataset_samples(dataset_version(jobs.NAME, 1), 0)
    table = from_parquet(ArtifactsStore(str(root)).read_bytes(path))
    return {row["key"].decode(errors="replace") for row in table.to_pylist() if row["use"] == Use.TRAINING}


@pytest.mark.parametrize("malformed", list(MALFORMED.values()), ids=list(MALFORMED))
def test_a_malformed_sample_is_a_finding(tmp_path: Path, malformed: bytes) -> None:
    report = jobs.register(tmp_path, write(tmp_path, malformed), **SETTINGS)

    assert good_samples(tmp_path) == {"good0", "good1", "good2", "good3"}
    assert report.usable == 4
    codes = {"missing_images", "unreadable_images", "missing_captions", "empty_captions", "unreadable_captions"}
    assert sum(finding.count for finding in report.findings if finding.code in codes) == report.samples - 4


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(HOSTILE, st.sampled_from([{}, {"label": 1}, {"short_side": {"max": 8}}]))
def test_arbitrary_samples_end_no_registration(tmp_path: Path, parts: list[bytes], where: dict[str, object]) -> None:
    report = jobs.register(tmp_path, write(tmp_path, *parts), **SETTINGS, where=where)

    wanted = {"good1", "good3"} if "label" in where else {"good0", "good1", "good2", "good3"}
    broken = any(finding.code == "broken_shards" for finding in report.findings)
    assert good_samples(tmp_path) >= wanted - ({"good2", "good3"} if broken else set())
    json.dumps(report.model_dump(mode="json"), ensure_ascii=False).encode()
    ArtifactsStore(str(tmp_path)).remove("datasets")
