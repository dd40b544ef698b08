"""The compact copy of a model version supports the texts of its job, and is small."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from tinyclip.artifacts.documents import JobDocument
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec
from tinyclip_workers.model.files.folders import load_folder
from tinyclip_workers.runtime.attempt import FinishedStudent, JobAttempt
from tinyclip_workers.training.stage import resolve_stage
from tinyclip_workers.versions.compact import main
from tinyclip_workers.versions.texts import evaluation_captions, job_texts, training_captions
from tinyclip_workers.versions.writer import write_student_version

from tests.workers.models import TINY, tiny_model
from tests.workers.shards import color_samples, write_shard


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    shard = write_shard(tmp_path / "t.tar", color_samples(4))
    task = {"name": "z", "kind": "zero_shot", "shards": shard, "classes": ["cat", "dog"], "templates": ["one {} here"]}
    return JobSpec.model_validate(
        {
            "name": "plain",
            "objective": {"contrastive": 1},
            "data": {"train": {"shards": shard}},
            "evaluation": {"tasks": [task, {"name": "r", "kind": "retrieval", "shards": shard, "caption_key": "json.captions"}]},
            "stages": [{"name": "s", "inherit": "none", "student": TINY.model_dump(), "train": {"steps": 1}}],
        }
    )


def test_the_texts_of_a_job_are_captions_and_prompts(spec: JobSpec) -> None:
    texts = list(job_texts(spec))

    assert texts[0] == "a red square 0"
    assert {"one cat here", "one dog here", "a blue square", "2"} <= set(texts)


def test_captions_of_joined_files_in_every_language_are_texts_too(tmp_path: Path, spec: JobSpec) -> None:
    (tmp_path / "more.jsonl").write_text(
        '{"key": "s0000", "captions": ["a crimson square"]}\nnot a line\n'
        '{"key": "s0001", "captions": {"en": ["a square"], "de": ["ein Quadrat"]}}\n'
    )
    document = spec.model_dump(mode="json")
    document["data"]["train"] |= {"captions": f"{tmp_path}/more.jsonl", "languages": ["en", "de"]}
    document["evaluation"]["tasks"][1] |= {"captions": f"{tmp_path}/more.jsonl", "languages": ["en", "de"]}
    joined = JobSpec.model_validate(document)

    assert {"a crimson square", "ein Quadrat", "a red square 0"} <= set(training_captions(joined.data.train))
    assert {"a crimson square", "ein Quadrat", "a red square"} <= set(evaluation_captions(joined.evaluation.tasks))


def test_a_compact_copy_encodes_the_texts_of_its_job_as_the_original(tmp_path: Path, spec: JobSpec) -> None:
    model = tiny_model()
    run = JobAttempt(ArtifactsStore(str(tmp_path)), JobDocument(job="j", name="p", spec=spec, model_name="p", model_version=1), 1)
    write_student_version(run, FinishedStudent(resolve_stage(spec, 0, None, None, 4).layout, save(model.state_dict()), {}))
    source, target = tmp_path / "models/p/1", tmp_path / "small"

    main([str(source), str(target)])

    small = load_folder(str(target))
    assert {path.name for path in target.iterdir()} == {"compact.safetensors", "layout.json", "open_clip_config.json"}
    assert (target / "compact.safetensors").stat().st_size < (source / "open_clip_model.safetensors").stat().st_size / 3
    tokens_BT = small.tokenizer(["one dog here", "a green square 1"])
    with torch.no_grad():
        torch.testing.assert_close(small.model.encode_text(tokens_BT), model.encode_text(tokens_BT), atol=1e-2, rtol=1e-2)
