"""Plans of jobs with a registered data set: no sample is read, changed shards are refused, serious findings are shown."""

import gzip
import os
from pathlib import Path
from typing import Any

import pytest
from tinyclip.addresses import ARTIFACTS_ROOT
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import DatasetVersion, FieldError, JobSpec, Plan
from tinyclip_workers.plan import dataset as plan_dataset
from tinyclip_workers.plan import shards as plan_shards
from tinyclip_workers.plan.specs import plan_or_errors

from tests.workers.plan_specs import Document, spec, write_data
from tests.workers.registered import register
from tests.workers.shards import color_samples, write_shard


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ARTIFACTS_ROOT, str(tmp_path / "store"))
    return write_data(tmp_path)


def registered(folder: Path, **more: Any) -> DatasetVersion:
    keys = {"image_key": ["png"], "caption_key": "json.captions", "distinct_key": "json.label"}
    return register(ArtifactsStore(str(folder / "store")), f"{folder}/train-{{0..1}}.tar", holdout=0.1, **keys, **more)


def on_dataset(folder: Path, version: DatasetVersion) -> Document:
    """Return a spec that trains on a version, as the control plane pins it."""
    document = spec(folder)
    source = version.source
    document["data"] = {"train": {
        "dataset": f"{version.name}@{version.version}", "image_key": source.image_key, "caption_key": source.caption_key,
        "distinct_key": source.distinct_key, "holdout": version.holdout,
    }}  # fmt: skip
    document["evaluation"]["tasks"] = document["evaluation"]["tasks"][:2]
    return document


def plan_of(folder: Path, version: DatasetVersion, **changes: Any) -> Plan:
    answer = plan_or_errors(on_dataset(folder, version) | changes, dataset=version.model_dump(mode="json"))
    return Plan.model_validate(answer["plan"])


def errors_of(folder: Path, version: DatasetVersion) -> list[FieldError]:
    answer = plan_or_errors(on_dataset(folder, version), dataset=version.model_dump(mode="json"))
    return [FieldError.model_validate(error) for error in answer["errors"]]


def test_an_epoch_has_the_pairs_of_the_version_and_no_sample_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = registered(folder)
    read: list[str] = []
    monkeypatch.setattr(plan_shards, "read_shard", lambda url, **_: read.append(url) or iter(()))

    answer = plan_or_errors(on_dataset(folder, version) | {"evaluation": {}}, dataset=version.model_dump(mode="json"))

    plan = Plan.model_validate(answer["plan"])
    assert plan.samples_per_epoch == version.pairs
    assert plan.stages[0].steps == -(-2 * version.pairs // 4)
    assert (plan.warnings, read) == ([], [])


def test_the_spec_of_the_plan_is_one_that_workers_resolve(folder: Path) -> None:
    version = registered(folder)

    train = plan_of(folder, version).spec.data.train

    assert (train.dataset, train.shards, train.samples) == ("shapes@1", None, None)
    assert JobSpec.model_validate(plan_of(folder, version).spec.model_dump(mode="json")).data.train == train


def test_serious_findings_of_the_report_are_warnings(folder: Path) -> None:
    def finding(code: str, severity: str) -> dict[str, Any]:
        about = {"count": 9, "share": 0.1, "message": f"9 samples are {code}.", "remedy": f"Remove the {code} ones."}
        return {"code": code, "severity": severity, **about}

    findings = [finding("shifted", "error"), finding("small", "warning"), finding("short", "info")]

    assert plan_of(folder, registered(folder, findings=findings)).warnings == [
        "data set shapes@1: 9 samples are shifted. Remove the shifted ones.",
        "data set shapes@1: 9 samples are small. Remove the small ones.",
    ]


def test_compressed_shards_are_warned_about(folder: Path) -> None:
    write_shard(folder / "plain.tar", color_samples(30))
    (folder / "packed.tar.gz").write_bytes(gzip.compress((folder / "plain.tar").read_bytes()))

    version = register(ArtifactsStore(str(folder / "store")), f"{folder}/packed.tar.gz")

    [warning] = plan_of(folder, version, evaluation={}).warnings
    assert "shards are compressed" in warning
    assert "write them as plain tar files" in warning


def test_a_task_on_the_shards_of_the_data_set_is_recognised(folder: Path) -> None:
    version = registered(folder)
    task = {"name": "seen", "kind": "retrieval", "shards": f"{folder}/train-0.tar", "image_key": ["png"]}

    warnings = plan_of(folder, version, evaluation={"tasks": [task]}).warnings

    assert warnings == ["task seen reads shards that are trained on; use subset: holdout for unseen images"]


class TestRefusals:
    def test_a_changed_shard_is_refused_with_the_remedy(self, folder: Path) -> None:
        version = registered(folder)
        before = os.path.getsize(folder / "train-1.tar")
        write_shard(folder / "train-1.tar", color_samples(30))

        [error] = errors_of(folder, version)

        assert (error.pointer, error.value) == ("/data/train/dataset", "shapes@1")
        assert f"train-1.tar has {os.path.getsize(folder / 'train-1.tar'):,} bytes, and had {before:,}" in error.message
        assert error.message.endswith("or register the data set again and use its new version")

    def test_missing_shards_are_refused_and_only_the_first_are_named(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plan_dataset, "MAX_PROBLEMS", 1)
        version = registered(folder)
        for number in (0, 1):
            (folder / f"train-{number}.tar").unlink()

        [error] = errors_of(folder, version)

        assert "train-0.tar is not there any more" in error.message

    def test_a_missing_index_is_refused(self, folder: Path) -> None:
        version = registered(folder)
        (folder / "store/datasets/shapes/1/report.json").unlink()

        [error] = errors_of(folder, version)

        assert error.pointer == "/data/train/dataset"
        assert "register it again" in error.message

    def test_without_a_server_there_are_no_data_sets(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        version = registered(folder)
        monkeypatch.delenv(ARTIFACTS_ROOT)

        [error] = errors_of(folder, version)

        assert error.message == "only the server knows its data sets; submit the spec to it"
