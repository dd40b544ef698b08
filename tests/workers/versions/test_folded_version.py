"""A version whose blocks differ in size is written, loaded, served, made compact, and used as a teacher."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save
from tinyclip.artifacts.documents import JobDocument
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec, ModelVersion
from tinyclip.schemas.spec import TeacherSpec
from tinyclip_workers.engines.load import load_engine
from tinyclip_workers.model.architecture import build_model
from tinyclip_workers.model.files.folders import load_folder
from tinyclip_workers.model.files.sources import check_teacher, load_teacher
from tinyclip_workers.model.preprocessing import normalize
from tinyclip_workers.model.towers import Clip
from tinyclip_workers.runtime.attempt import FinishedStudent, JobAttempt
from tinyclip_workers.versions.compact import compact_folder
from tinyclip_workers.versions.writer import write_student_version

from tests.workers.auto_stages import TEACHER, auto, spec_of
from tests.workers.evaluations import evaluate
from tests.workers.models import write_folder
from tests.workers.served_students import folded
from tests.workers.shapes_data import write_shards
from tests.workers.students import random_image, square_of

TEXTS = ["a red square", "a very long text about a circle that is larger than any context", "x"]


@pytest.fixture(scope="module")
def student() -> Clip:
    """A folded student of random masks."""
    torch.manual_seed(5)
    model = folded(TEACHER)
    assert not model.layout.is_uniform
    return model


@pytest.fixture(scope="module")
def version(student: Clip, tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelVersion, Path]:
    folder = tmp_path_factory.mktemp("folded")
    write_folder(folder / "teacher", build_model(TEACHER), TEACHER)
    spec = spec_of(write_shards(folder, shards=1, pairs=4), auto(0.5), teacher={"model": f"local-dir:{folder}/teacher"})
    document = JobDocument(
        job="job_1", name="auto", spec=JobSpec.model_validate(spec.model_dump()), model_name="auto", model_version=1
    )
    run = JobAttempt(ArtifactsStore(str(folder / "store")), document, 1)
    run.finish_stage(0, FinishedStudent(student.layout, save(student.state_dict()), {}))
    finished = run.finished_stage(0)
    assert finished is not None
    assert finished.layout == student.layout
    return write_student_version(run, finished), folder / "store/models/auto/1"


def test_its_card_describes_a_model_that_open_clip_cannot_build(version: tuple[ModelVersion, Path], student: Clip) -> None:
    document, folder = version

    names = {file.path for file in document.files}
    assert names == {"model.safetensors", "layout.json", "preprocess.json", "evaluation.json", "layout.svg", "README.md"}
    assert document.layout == student.layout
    assert document.params.image == sum(parameter.numel() for parameter in student.visual.parameters())
    card = (folder / "README.md").read_text()
    assert "open_clip cannot build such a model" in card
    assert "library_name: tinyclip" in card
    import_example = next(line for line in card.splitlines() if line.startswith("from tinyclip_workers"))
    exec(import_example)
    assert f"| text | 0 | {student.layout.text.heads[0]} | {student.layout.text.mlp[0]} |" in card


def test_its_drawing_shows_every_block(version: tuple[ModelVersion, Path], student: Clip) -> None:
    drawing = ElementTree.parse(version[1] / "layout.svg").getroot()

    texts = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    for tower in (student.layout.image, student.layout.text):
        assert f"{tower.width} of 32 channels" in " ".join(text or "" for text in texts)
        for count in [*(tower.heads or []), *(tower.mlp or [])]:
            assert str(count) in texts


def test_the_loaded_model_gives_the_same_embeddings(version: tuple[ModelVersion, Path], student: Clip) -> None:
    loaded = load_folder(str(version[1]))

    images, tokens = torch.randn(2, 3, 32, 32), loaded.tokenizer(TEXTS)
    assert (loaded.name, loaded.layout, loaded.image_std) == ("auto@1", student.layout, (0.2, 0.2, 0.2))
    with torch.no_grad():
        assert torch.equal(loaded.model.encode_image(images), student.encode_image(images))
        assert torch.equal(loaded.model.encode_text(tokens), student.encode_text(tokens))


def test_its_engine_gives_the_same_embeddings(version: tuple[ModelVersion, Path], student: Clip) -> None:
    engine, loaded = load_engine(str(version[1])), load_folder(str(version[1]))

    square = square_of(random_image(1))[None]
    pixels = normalize(torch.from_numpy(square).permute(0, 3, 1, 2), loaded.image_mean, loaded.image_std)
    images, texts = engine.encode_image(square), engine.encode_text(TEXTS)

    assert engine.embed_dim == student.layout.embed_dim
    with torch.no_grad():
        np.testing.assert_allclose(images, F.normalize(student.encode_image(pixels), dim=-1).numpy(), atol=1e-6)
        wanted = F.normalize(student.encode_text(loaded.tokenizer(TEXTS)), dim=-1).numpy()
    np.testing.assert_allclose(texts, wanted, atol=1e-6)


def test_it_is_evaluated_and_is_a_teacher_for_the_next_job(version: tuple[ModelVersion, Path], tmp_path: Path) -> None:
    spec = TeacherSpec(model=f"local-dir:{version[1]}")

    source, loaded = check_teacher(spec), load_teacher(spec)

    assert source.layout == loaded.layout
    document = {"name": "words", "kind": "retrieval", "shards": write_shards(tmp_path, shards=1, pairs=24), "image_key": ["png"]}
    task = spec_of("x", auto(0.5), evaluation={"tasks": [document]}).evaluation.tasks[0]
    assert evaluate({"student": loaded}, task)["student"]["samples"] == 24


def test_its_compact_copy_encodes_the_same_texts(version: tuple[ModelVersion, Path], student: Clip, tmp_path: Path) -> None:
    compact_folder(str(version[1]), str(tmp_path), TEXTS)

    loaded = load_folder(str(tmp_path))

    with torch.no_grad():
        tokens = loaded.tokenizer(TEXTS)
        torch.testing.assert_close(loaded.model.encode_text(tokens), student.encode_text(tokens), rtol=0.02, atol=0.02)
