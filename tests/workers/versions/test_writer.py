"""Writing a model version: it opens in open_clip, has its lineage, and may be interrupted and repeated."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from PIL import Image
from safetensors.torch import load_file
from tinyclip.artifacts.documents import JobDocument
from tinyclip.artifacts.predictions import TaskPredictions
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec, ModelVersion, VocabularyChoice
from tinyclip.schemas.models import InheritedBlocks
from tinyclip_workers.data.eval_transform import eval_transform
from tinyclip_workers.model.files.folders import load_folder
from tinyclip_workers.model.preprocessing import normalize
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.model.tokenizers import count_unknown_tokens, make_tokenizer
from tinyclip_workers.runtime.attempt import AXES, FinishedStudent, JobAttempt
from tinyclip_workers.training.stage import resolve_stage
from tinyclip_workers.versions.ancestry import SELECTED_BLOCKS
from tinyclip_workers.versions.lineage import data_digests, training_spec
from tinyclip_workers.versions.writer import write_student_version

from tests.workers.models import TINY, tiny_layout, tiny_model, write_folder
from tests.workers.registered import register
from tests.workers.shards import color_samples, write_shard
from tests.workers.version_case import finished_student, job_run, weights_of


@pytest.fixture
def teacher(tmp_path: Path) -> CLIP:
    model = tiny_model(seed=5)
    write_folder(tmp_path / "teacher", model, tiny_layout())
    return model


@pytest.mark.usefixtures("teacher")
def test_nested_embeddings_are_on_the_axes_that_the_version_has(tmp_path: Path) -> None:
    run, stage = job_run(tmp_path)
    run.spec.objective.embedding_sizes = [4, 8]
    student = tiny_model(seed=1, layout=stage.layout)
    axes_EE = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(7))).Q
    across = {f"text_to_image_r{k}": k / 20 for k in (1, 5, 10)}
    with_teacher = {"student_texts": {**across, "share": 0.97}, "teacher_texts": {**across, "share": 0.98}}
    student_scores = {"top1": 0.8, "by_size": {"4": {"top1": 0.5}, "8": {"top1": 0.75}}, "with_teacher": with_teacher}
    scores = {"student": student_scores, "teacher": None}

    written = write_student_version(run, replace(finished_student(stage, student), axes_EE=axes_EE, evaluation={"c": scores}))

    folder = tmp_path / "store/models/small/2"
    loaded = load_folder(str(folder))
    assert written.embedding_sizes == [4, 8, 16] == list(loaded.embedding_sizes)
    tokens_BT = loaded.tokenizer(["a red square", "nothing at all"])
    stored_EE = load_file(folder / AXES)["axes"]
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.model.encode_text(tokens_BT) @ stored_EE.T, student.encode_text(tokens_BT), atol=1e-5, rtol=1e-5
        )
    card = (folder / "README.md").read_text()
    assert "cut to 4 or 8 numbers" in card
    found = written.compatible_with
    assert found is not None
    assert (found.teacher, found.axes, found.share) == ("teacher", AXES, 0.97)
    assert found.sha256 == written.lineage["teacher"]["sha256"]
    assert "| c | small | teacher | 0.050 | 0.250 | 0.500 | 97.0% |" in card
    assert "| 4 | 0.500 |\n| 8 | 0.750 |\n| 16 | 0.800 |" in card


@pytest.mark.usefixtures("teacher")
def test_a_version_opens_in_plain_open_clip_with_the_same_embeddings(tmp_path: Path) -> None:
    run, stage = job_run(tmp_path)
    student = tiny_model(seed=1, layout=stage.layout)
    write_student_version(run, finished_student(stage, student))
    folder = tmp_path / "store/models/small/2"
    image = Image.effect_noise((50, 40), 80).convert("RGB")

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")

    tokens_BT = tokenizer(["a red square", "nothing at all"])
    assert tokens_BT.shape == (2, 16)
    pixels_BCHW = eval_transform(32)(image)[None]
    own_BCHW = normalize(pixels_BCHW, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    torch.testing.assert_close(preprocess(image)[None], own_BCHW, atol=1e-5, rtol=0)
    with torch.no_grad():
        for here, there in (
            (student.encode_image(own_BCHW), model.eval().encode_image(preprocess(image)[None])),
            (student.encode_text(tokens_BT), model.encode_text(tokens_BT)),
        ):
            torch.testing.assert_close(here, there, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("teacher")
def test_a_version_is_a_teacher_for_the_next_job_run(tmp_path: Path) -> None:
    run, stage = job_run(tmp_path)
    write_student_version(run, finished_student(stage))

    loaded = load_folder(str(tmp_path / "store/models/small/2"))

    assert loaded.name == "small@2"
    assert loaded.layout == stage.layout
    assert loaded.image_std == (0.2, 0.2, 0.2)


@pytest.mark.usefixtures("teacher")
def test_the_document_has_the_files_and_the_lineage(tmp_path: Path) -> None:
    run, stage = job_run(tmp_path)

    version = write_student_version(run, finished_student(stage))

    folder = tmp_path / "store/models/small/2"
    assert version == ModelVersion.model_validate_json((folder / "model.json").read_bytes())
    for file in version.files:
        data = (folder / file.path).read_bytes()
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert {f.path for f in version.files} == {p.name for p in folder.iterdir()} - {"model.json"}
    assert version.params.text == version.params.text_without_embedding + 49408 * 16
    assert (version.teacher, version.aliases, version.context_length) == ("teacher", [], 16)
    lineage = version.lineage
    assert lineage["spec"]["name"] == "small"
    for entry, file in ((lineage["teacher"], "teacher/open_clip_model.safetensors"), (lineage["data"][0], "train.tar")):
        assert entry["sha256"] == hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
    assert lineage["code"].keys() >= {"tinyclip", "torch", "open_clip_torch", "python"}


@pytest.mark.usefixtures("teacher")
def test_the_document_has_the_size_of_the_teacher_and_what_was_inherited(tmp_path: Path) -> None:
    run, stage = job_run(tmp_path)
    unknown = write_student_version(run, finished_student(stage))
    run = replace(run, document=run.document.model_copy(update={"model_version": 3}))
    run.keep_selection(0, SELECTED_BLOCKS, {"image": [0, 1], "text": [1]})

    version = write_student_version(run, finished_student(stage))

    assert version.inherited_from == unknown.inherited_from == tiny_layout()
    assert (version.inherited_blocks, unknown.inherited_blocks) == (InheritedBlocks(image=[0, 1], text=[1]), None)
    summary = summarize(tiny_layout())
    assert version.teacher_params is not None
    assert (version.teacher_params.image, version.teacher_macs) == (summary.image_params, summary.macs)


@pytest.mark.usefixtures("teacher")
def test_predictions_lie_beside_the_version(tmp_path: Path) -> None:
    run, stage = job_run(tmp_path)
    columns = {"shard": [0], "start": [0], "length": [512], "keys": ["a"], "labels": [0]}
    models = {"student": {"rows": [0], "scores": [1.0]}}
    names = {"task": "colors", "classes": ["red"], "image_key": ["png"], "images": 1, "shards": ["/a.tar"]}
    packed = TaskPredictions.model_validate({**names, **columns, "models": models}).pack()
    run.finish_stage(0, replace(finished_student(stage), predictions={"colors": packed}))
    student = run.finished_stage(0)
    assert student is not None

    version = write_student_version(run, student)

    assert run.store.read_bytes("models/small/2/predictions/colors.json.gz") == packed
    kept = version.predictions["colors"]
    assert (kept.kept, kept.teacher, kept.evaluation, kept.sha256) == (1, False, None, hashlib.sha256(packed).hexdigest())
    assert not any("predictions" in file.path for file in version.files)


@pytest.mark.usefixtures("teacher")
def test_the_lineage_and_the_card_name_the_version_of_the_data_set(tmp_path: Path) -> None:
    run, stage = job_run(tmp_path)
    dataset = register(run.store, f"{tmp_path}/train.tar", number=3)
    train = {"dataset": "shapes@3"}
    spec = JobSpec.model_validate({**run.document.spec.model_dump(), "data": {"train": train}})
    document = run.document.model_copy(update={"spec": spec, "dataset": dataset})

    version = write_student_version(replace(run, document=document), finished_student(stage))

    lineage = version.lineage
    assert (lineage["dataset"]["name"], lineage["dataset"]["version"], lineage["dataset"]["pairs"]) == ("shapes", 3, 4)
    assert lineage["data"][0]["sha256"] == hashlib.sha256((tmp_path / "train.tar").read_bytes()).hexdigest()
    assert lineage["spec"]["data"]["train"]["shards"] is None
    spec_again = training_spec(version)
    assert spec_again is not None
    assert (spec_again.data.train.patterns, spec_again.data.train.image_key) == ([f"{tmp_path}/train.tar"], ["png", "jpg"])
    card = (tmp_path / "store/models/small/2/README.md").read_text()
    assert f"- training data: data set `shapes@3`, 4 pairs, digest `{dataset.digest}`, `{tmp_path}/train.tar`" in card


@pytest.mark.usefixtures("teacher")
def test_the_card_has_the_scores_of_student_and_teacher(tmp_path: Path) -> None:
    run, stage = job_run(tmp_path)

    write_student_version(run, finished_student(stage))

    card = (tmp_path / "store/models/small/2/README.md").read_text()
    assert card.startswith("---\nlibrary_name: open_clip\n")
    assert "| model | top1 | top5 | ms_per_image |" in card
    assert "| teacher | 0.912 | 1.000 | 2.500 |\n| small | 0.810 | 0.990 | 1.250 |" in card
    assert "- stage `half`: inherit manual, 3 steps" in card


@pytest.mark.usefixtures("teacher")
@pytest.mark.parametrize("written_files", [0, 1, 3, 5])
def test_an_interrupted_write_is_repeated(tmp_path: Path, written_files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run, stage = job_run(tmp_path)
    finished = finished_student(stage)
    written: list[str] = []
    write_bytes = ArtifactsStore.write_bytes

    def interrupted(self: ArtifactsStore, path: str, data: bytes) -> None:
        if len(written) == written_files:
            raise KeyboardInterrupt
        written.append(path)
        write_bytes(self, path, data)

    monkeypatch.setattr(ArtifactsStore, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_student_version(run, finished)
    assert not (tmp_path / "store/models/small/2/model.json").exists()
    monkeypatch.setattr(ArtifactsStore, "write_bytes", write_bytes)

    again = write_student_version(run, finished)
    third = write_student_version(run, FinishedStudent(stage.layout, b"", {}))

    assert third == again
    assert load_folder(str(tmp_path / "store/models/small/2")).layout == stage.layout


@pytest.mark.usefixtures("teacher")
def test_a_version_of_another_job_is_not_changed(tmp_path: Path) -> None:
    run, stage = job_run(tmp_path)
    write_student_version(run, finished_student(stage))
    other, _ = job_run(tmp_path, name="job_2")

    with pytest.raises(FileExistsError, match="belongs to job job_1"):
        write_student_version(other, FinishedStudent(stage.layout, b"", {}))


@pytest.mark.usefixtures("teacher")
def test_a_version_may_be_written_to_any_filesystem(tmp_path: Path) -> None:
    run, stage = job_run(tmp_path, root="memory://artifacts")

    write_student_version(run, finished_student(stage))

    assert load_folder("memory://artifacts/models/small/2").name == "small@2"


def test_a_model_without_a_teacher_has_no_teacher_in_document_and_card(tmp_path: Path) -> None:
    spec = JobSpec.model_validate(
        {
            "name": "plain",
            "objective": {"contrastive": 1},
            "data": {"train": {"shards": "nowhere.tar"}},
            "stages": [{"name": "s", "inherit": "none", "student": TINY.model_dump(), "train": {"epochs": 1}}],
        }
    )
    document = JobDocument(job="j", name="plain", spec=spec, model_name="plain", model_version=1)
    run = JobAttempt(ArtifactsStore(str(tmp_path)), document, 1)
    stage = resolve_stage(spec, 0, None, None, 100)

    version = write_student_version(run, FinishedStudent(stage.layout, weights_of(tiny_model()), {}))

    assert version.teacher is None
    assert version.lineage["teacher"] is None
    assert version.lineage["data"] == [{"url": "nowhere.tar"}]
    assert "without a teacher" in (tmp_path / "models/plain/1/README.md").read_text()
    config: dict[str, Any] = json.loads((tmp_path / "models/plain/1/open_clip_config.json").read_text())
    assert config["preprocess_cfg"]["interpolation"] == "bicubic"


def test_large_data_is_identified_by_size_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_shard(tmp_path / "a.tar", color_samples(2))
    monkeypatch.setattr("tinyclip_workers.versions.lineage.MAX_BYTES_TO_HASH", 10)

    assert data_digests(shard) == [{"url": shard, "bytes": (tmp_path / "a.tar").stat().st_size}]


@pytest.mark.usefixtures("teacher")
def test_a_version_with_a_reduced_vocabulary_is_smaller_and_reads_its_texts_as_before(tmp_path: Path) -> None:
    run, stage = job_run(tmp_path)
    run.document.spec = run.spec.model_copy(update={"vocabulary": VocabularyChoice.REDUCED})
    student = tiny_model(seed=1, layout=stage.layout)

    version = write_student_version(run, finished_student(stage, student))

    small = load_folder(str(tmp_path / "store/models/small/2"))
    report = version.lineage["vocabulary"]
    assert small.layout.vocab_size == report["tokens"] == version.layout.vocab_size < 600
    assert version.params.text - version.params.text_without_embedding == report["tokens"] * small.layout.text.width
    assert "tokens: those of the texts that it was trained" in (tmp_path / "store/models/small/2/README.md").read_text()
    whole, texts = make_tokenizer(stage.layout), ["a red square 0", "a green square 1"]
    with torch.no_grad():
        assert small.model.encode_text(small.tokenizer(texts)).equal(student.encode_text(whole(texts)))
    assert count_unknown_tokens(small.tokenizer, [*texts, "an elephant"]) == 2
