"""Everything that reads shards, beside training, goes on after a malformed sample."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from tinyclip.schemas import IndexSource, JobSpec, Plan
from tinyclip.schemas.spec import DataSpec, EvaluationTask, LinearProbeTask, RetrievalTask, ZeroShotTask
from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.engines.calibration import sample_calibration_images
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.evaluation.tasks import evaluate_tasks
from tinyclip_workers.exporting.samples import gather_samples
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.tokenizers import make_tokenizer
from tinyclip_workers.plan.specs import make_plan
from tinyclip_workers.retrieval.items import BuildProgress, read_items
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.versions.compact import job_texts

from tests.workers.data.test_malformed_samples import GOOD, HOSTILE, KEY, MALFORMED, train_data, write
from tests.workers.models import tiny_layout, tiny_model

LAYOUT = tiny_layout()
GRAY = (0.5, 0.5, 0.5)


@cache
def model() -> LoadedModel:
    return LoadedModel(tiny_model(), LAYOUT, make_tokenizer(LAYOUT), GRAY, GRAY, "student", "")


def tasks(shards: str) -> list[EvaluationTask]:
    common: Any = {"shards": shards, "image_key": ["png"]}
    return [
        ZeroShotTask(name="zero", kind="zero_shot", classes=["cat", "dog"], templates=["a {}"], label_key="json.label", **common),
        RetrievalTask(name="words", kind="retrieval", caption_key=KEY, **common),
        LinearProbeTask(name="probe", kind="linear_probe", label_key="json.label", train_shards=shards, **common),
        ZeroShotTask(
            name="some", kind="zero_shot", classes=["cat", "dog"], templates=["a {}"], label_key="json.label",
            where={"label": 1}, **common,
        ),
    ]  # fmt: skip


def spec(shards: str) -> JobSpec:
    train = {**train_data(shards).model_dump(), "distinct_key": None}
    return JobSpec.model_validate(
        {
            "name": "a", "data": {"train": train}, "objective": {"contrastive": 1}, "batch_size": 1,
            "evaluation": {"tasks": [task.model_dump() for task in tasks(shards)]},
            "stages": [
                {
                    "name": "s", "inherit": "none", "student": {"preset": "TinyCLIP-ViT-8M-16-Text-3M"},
                    "train": {"steps": 9}, "batch_size": 1,
                }
            ],
        }
    )  # fmt: skip


def evaluate(shards: str) -> None:
    scores = evaluate_tasks({"student": model()}, tasks(shards))

    assert all(scores[task]["student"]["samples"] >= 4 for task in ("zero", "words", "probe"))
    assert scores["some"]["student"]["samples"] >= 2
    json.dumps(scores, ensure_ascii=False, allow_nan=False).encode()


def plan(shards: str) -> None:
    planned = make_plan(spec(shards))

    assert isinstance(planned, Plan), planned
    planned.model_dump_json()


def build_index(shards: str) -> None:
    events, skipped = cast(EventWriter, None), Skipped()
    source = IndexSource(shards=shards, image_key=["png"], metadata_keys=["json", "cls"])
    engine = cast(Engine, SimpleNamespace(image_size=8))

    items = list(read_items([shards], source, engine, skipped, BuildProgress(events, [shards])))

    assert {item.id for item in items} >= {"good0", "good1", "good2", "good3"}
    json.dumps([item.metadata for item in items], allow_nan=False)


def calibrate(shards: str) -> None:
    assert len(sample_calibration_images(DataSpec(train=train_data(shards)), 8)) >= 4


def export(shards: str) -> None:
    found = gather_samples([], train_data(shards))
    asked = gather_samples(tasks(shards), None)

    assert (found.source, asked.source) == ("training data", "evaluation task zero")
    assert set(found.texts) >= GOOD
    assert len(found.checked) + len(found.calibration) >= 4


def compact(shards: str) -> None:
    assert set(job_texts(spec(shards))) >= GOOD


READERS: list[Callable[[str], None]] = [evaluate, plan, build_index, calibrate, export, compact]


@pytest.mark.parametrize("read", READERS)
def test_a_reader_uses_the_good_samples_around_malformed_ones(tmp_path: Path, read: Callable[[str], None]) -> None:
    read(write(tmp_path, *MALFORMED.values()))


@pytest.mark.parametrize("read", READERS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(parts=HOSTILE)
def test_a_reader_uses_the_good_samples_around_arbitrary_ones(
    tmp_path: Path, read: Callable[[str], None], parts: list[bytes]
) -> None:
    read(write(tmp_path, *parts))
