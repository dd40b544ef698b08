"""One job, from spec to answered query, through the command line and the SDK."""

import io
import json
import re
import tarfile
import time
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from tinyclip.schemas import Layout

from tests.e2e.world import Undisturbed, World
from tests.workers.shapes_data import draw_shape

pytestmark = [pytest.mark.timeout(900), pytest.mark.ray]


@pytest.fixture
def picture(world: World) -> Path:
    file = world.folder / "circle.png"
    draw_shape("blue", "circle", 32).save(file)
    return file


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(world: World) -> None:
    before = world.client.jobs.page().items

    ran = world.service.client("jobs", "submit", world.spec_file, "--dry-run", "--set", "stages.1.train.steps=7")

    assert ran.code == 0, ran.err
    assert re.search(r"\| half +\| manual importance +\|.*\| +7 \|", ran.out)
    assert world.client.jobs.page().items == before


def test_a_watched_job_ends_with_the_teachers_numbers_above_the_students(undisturbed: Undisturbed) -> None:
    lines = undisturbed.ran.out.splitlines()

    heading, _, teacher, thinner, half = lines[-6:-1]
    columns = [column.strip() for column in heading.strip("|").split("|")]
    assert columns[0] == "model"
    assert "colours top-1 / top-5" in heading
    assert "captions R@1 / R@10" in heading
    assert "ms per image" in heading
    for row, name in ((teacher, "teacher"), (thinner, "thinner"), (half, "half")):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0] == name
        assert all(cells)
        agreement = cells.pop(columns.index("KL to teacher"))
        kept = cells.pop(next(number for number, column in enumerate(columns) if column.startswith("kept ")))
        assert "–" not in cells
        assert re.fullmatch("–" if name == "teacher" else r"\d+\.\d%( / \d+\.\d%)*", kept)
        assert re.fullmatch("–" if name == "teacher" else r"[\d.e-]+ → [\d.e-]+", agreement)
    assert re.fullmatch(r"model shapes@\d+", lines[-1])
    assert any(re.match(r"stage 2/2 half: step \d+/120  loss [\d.]+  KL [\d.e-]+  \d+ pairs/s  eta", line) for line in lines)


def test_history_and_metrics_tell_the_same_story(world: World, undisturbed: Undisturbed) -> None:
    types = [event.type for event in world.client.jobs.events(undisturbed.job.id)]
    losses = world.client.jobs.metrics(undisturbed.job.id, names=["loss"]).series["loss"]

    assert types[0] == "job.created"
    assert types[-1] == "job.succeeded"
    assert [kind for kind in types if kind.startswith("stage.")] == ["stage.started", "stage.evaluating", "stage.finished"] * 2
    assert [(point.stage, point.step) for point in losses if point.step == 120] == [(0, 120), (1, 120)]


def test_json_is_the_apis_object(world: World, undisturbed: Undisturbed) -> None:
    ran = world.service.client("jobs", "get", undisturbed.job.id, "--json")

    assert json.loads(ran.out) == json.loads(undisturbed.job.model_dump_json())


def test_the_pulled_student_opens_in_open_clip_and_embeds_what_the_deployment_embeds(
    world: World, undisturbed: Undisturbed, deployment: str, picture: Path
) -> None:
    pulled = world.folder / "pulled"
    assert undisturbed.job.model is not None
    ran = world.service.client("models", "pull", f"shapes@{undisturbed.job.model.version}", pulled)
    assert ran.code == 0, ran.err

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{pulled}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{pulled}")
    texts = ["a blue circle", "a violet bar"]
    with torch.no_grad():
        texts_BD = model.eval().encode_text(tokenizer(texts), normalize=True)
        image_BD = model.encode_image(preprocess(Image.open(picture))[None], normalize=True)
    student = world.client.deployments.open(deployment)

    torch.testing.assert_close(torch.tensor(student.embed_texts(texts)), texts_BD, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.tensor(student.embed_images([picture])), image_BD, atol=1e-5, rtol=0)


def test_its_images_can_be_compared_with_its_teachers(world: World, undisturbed: Undisturbed) -> None:
    assert undisturbed.job.model is not None
    version = world.client.models.version(f"shapes@{undisturbed.job.model.version}")
    student, teacher = version.evaluation["colours"].student, version.evaluation["colours"].teacher

    page = world.client.models.compare_predictions([f"shapes@{version.version}", "teacher"], classes=True, page_size=2)
    jpeg = world.client.models.task_thumbnail(f"shapes@{version.version}", "colours", page.items[1].number, size=16)

    assert teacher is not None
    assert (page.task, page.images, page.kept) == ("colours", student["samples"], student["samples"])
    for scores, only in ((student, page.counts.only_first), (teacher, page.counts.only_second)):
        assert (page.counts.both_right + only) / page.images == pytest.approx(scores["top1"])
    assert [sum(found.correct[n] for found in page.classes) / page.images for n in (0, 1)] == [
        pytest.approx(scores["top1"]) for scores in (student, teacher)
    ]
    with Image.open(io.BytesIO(jpeg)) as thumbnail:
        assert (thumbnail.format, max(thumbnail.size)) == ("JPEG", 16)


def test_its_document_has_what_it_inherited(world: World, undisturbed: Undisturbed) -> None:
    assert undisturbed.job.model is not None
    version = world.client.models.version(f"shapes@{undisturbed.job.model.version}")

    assert isinstance(version.inherited_from, Layout)
    assert isinstance(version.layout, Layout)
    assert version.inherited_blocks is not None
    assert len(version.inherited_blocks.text) == version.layout.text.layers < version.inherited_from.text.layers
    assert version.teacher_params is not None
    assert version.teacher_params.image > version.params.image


def test_a_deployment_classifies(world: World, deployment: str, picture: Path) -> None:
    ran = world.service.client("classify", picture, "--labels", "a red square,a blue circle,a black bar", "-d", deployment)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in ran.out.splitlines()[2:]]

    assert ran.code == 0, ran.err
    assert {row[1] for row in rows} == {"a red square", "a blue circle", "a black bar"}
    assert sum(float(row[2]) for row in rows) == pytest.approx(1.0, abs=0.002)


@pytest.fixture(scope="module")
def gallery(world: World, deployment: str) -> str:
    """What the command that builds an index of the images of `val` has printed."""
    model, shards = world.client.deployments.get(deployment).model, f"{world.folder}/val/*.tar"
    built = world.service.client("indexes", "create", "gallery", "--model", model, "--shards", shards)
    assert built.code == 0, built.out + built.err
    return built.out


def test_an_index_is_searched_by_text_and_by_image(world: World, deployment: str, gallery: str) -> None:
    by_text = world.service.client("search", "a blue circle", "-d", deployment, "-i", "gallery", "--top-k", "3")
    by_image = world.client.deployments.open(deployment).search("gallery", image=_first_picture(world), top_k=48)

    assert f"gallery {world.client.deployments.get(deployment).model} ready, 48 items" in gallery
    assert len(by_text.out.splitlines()) == 5, by_text.err
    itself = next(hit for hit in by_image.hits if hit.id == "val-0-0000")
    assert itself.score == pytest.approx(1.0, abs=1e-4)
    assert itself.score >= by_image.hits[0].score - 1e-4  # so short a training may leave others as near
    assert itself.metadata["concept"] == "red square"


def test_an_index_is_changed_without_a_new_build(world: World, deployment: str, gallery: str) -> None:
    (world.folder / "mine.png").write_bytes(_first_picture(world))
    mine = {"year": {"gte": 2020}}
    added = world.service.client(
        "indexes", "add", "gallery", f"{world.folder}/mine.png", "--text", "a blue circle", "--metadata", '{"year": 2020}'
    )
    student = world.client.deployments.open(deployment)
    found = student.search("gallery", image=_first_picture(world), filter=mine)
    elsewhere = student.search("gallery", "a blue circle", filter={"year": {"lt": 2020}})
    removed = world.service.client("indexes", "remove", "gallery", f"{world.folder}/mine.png")
    time.sleep(1.5)  # replicas look for a new generation every second
    left = student.search("gallery", image=_first_picture(world), filter=mine)

    assert [ran.code for ran in (added, removed)] == [0, 0], added.err + removed.err
    assert [hit.id for hit in found.hits] == [f"{world.folder}/mine.png", "a blue circle"]
    assert elsewhere.hits == []
    assert [hit.id for hit in left.hits] == ["a blue circle"]
    assert left.generation == found.generation + 1


def _first_picture(world: World) -> bytes:
    with tarfile.open(world.folder / "val" / "val-000000.tar") as tar:
        picture = tar.extractfile("val-0-0000.png")
        assert picture is not None
        return picture.read()
