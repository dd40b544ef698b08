"""Bad input is answered in two lines, the error and the remedy, and changes nothing."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.world import World
from tests.workers.shapes_data import add_file, draw_shape

pytestmark = [pytest.mark.timeout(900), pytest.mark.ray]


def write_pairs(folder: Path, picture: Callable[[int], bytes], caption: Callable[[int], str]) -> str:
    """A shard of 64 pairs; returns its path."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "pairs.tar", "w") as tar:
        for number in range(64):
            add_file(tar, f"{number:04d}.png", picture(number))
            add_file(tar, f"{number:04d}.txt", caption(number).encode())
    return str(folder / "pairs.tar")


def png(number: int) -> bytes:
    encoded = io.BytesIO()
    draw_shape("red", "square", 32, shift=number % 5).save(encoded, "png")
    return encoded.getvalue()


@pytest.fixture(scope="module")
def bad_data(world: World) -> dict[str, str]:
    """Shards with one thing wrong each."""
    folder = world.folder / "bad"
    folder.mkdir()
    (folder / "nothing.tar").write_bytes(b"")
    tarfile.open(folder / "no_pairs.tar", "w").close()
    return {
        "nothing": str(folder / "nothing.tar"),
        "no_pairs": str(folder / "no_pairs.tar"),
        "no_images": write_pairs(folder / "no_images", lambda number: b"GIF, honestly", lambda number: f"caption {number}"),
        "one_caption": write_pairs(folder / "one_caption", png, lambda number: "image"),
        "numbers": write_pairs(folder / "numbers", png, lambda number: str(number)),
    }


@pytest.mark.parametrize(
    ("override", "what", "remedy"),
    [
        ("optimizer.learning_rate=1e-4", "optimizer.learning_rate = 0.0001", "known here: betas"),
        ("stages.0.student.text.layers=5", "stages.0.student.text.layers = 5", "at most 2"),
        ("stages.1.student.image.width=8", "stages.1.student.image.width = 8", "at most 4"),
        ("stages.0.student.text={layers: 1, heads: 3}", "stages.0.student.text.heads = 3", "try 2, 4, 8"),
        ("stages.0.train={steps: 5, epochs: 1}", "stages.0.train", "exactly one of steps, samples and epochs"),
        ("data.train.shards=nowhere/*.tar", "data.train.shards", "nowhere/*.tar"),
        ("data.train.shards={nothing}", "data.train.shards", "nothing.tar"),
        ("data.train.shards={no_pairs}", "data.train.shards", "no_pairs.tar"),
        ("data.train.shards={no_images}", "data.train", "pairs.tar"),
        ("data.train.shards={one_caption}", "data.train.caption_key", "name the file or json.FIELD"),
        ("data.train.shards={numbers}", "data.train.caption_key", "not text"),
        ("evaluation.tasks.0.classes=[red, green]", "evaluation.tasks.0.classes", "2 classes"),
        ("evaluation.tasks.0.classes=nowhere.txt", "evaluation.tasks.0.classes", "there is no file"),
        ("evaluation.tasks.0.label_key=json.hue", "evaluation.tasks.0.label_key", "color"),
        ("teacher.model=local-dir:nowhere", "teacher.model", "nowhere"),
        ("teacher.model=ViT-B-33", "teacher.model = \"ViT-B-33\"", "ViT-B-32"),
        ("batch_size=100000", "batch_size = 100000", "lower it"),
    ],
)
def test_a_bad_spec_is_refused(world: World, bad_data: dict[str, str], override: str, what: str, remedy: str) -> None:
    for name, path in bad_data.items():
        override = override.replace("{" + name + "}", path)
    before = (world.client.jobs.page().items, sorted(world.service.artifacts.rglob("*")))

    ran = world.service.client_here("jobs", "submit", world.spec_file, "--set", override)

    assert ran.code == 2, ran.out + ran.err
    first, second = ran.err.splitlines()
    assert first.startswith(f"error: {what}")
    assert remedy in second
    assert second.startswith("  ")
    assert (world.client.jobs.page().items, sorted(world.service.artifacts.rglob("*"))) == before


class TestQuestions:
    def test_a_file_that_is_no_image_is_named(self, world: World, deployment: str) -> None:
        ran = world.service.client("classify", world.spec_file, "--labels", "a,b", "-d", deployment)

        assert ran.code == 2
        first, second = ran.err.splitlines()
        assert first == f"error: image {world.spec_file}"
        assert "send the bytes of a PNG" in second

    def test_an_index_that_is_not_there_is_named(self, world: World, deployment: str) -> None:
        ran = world.service.client("search", "red", "-d", deployment, "-i", "nowhere")

        assert ran.code == 2
        first, second = ran.err.splitlines()
        assert "there is no index nowhere" in first
        assert "create it" in second

    def test_a_deployment_that_is_not_there_is_named(self, world: World) -> None:
        ran = world.service.client("embed", "red", "-d", "nowhere")

        assert ran.code == 2
        assert "nowhere" in ran.err.splitlines()[0]
        assert len(ran.err.splitlines()) == 2

    def test_a_model_that_is_not_there_is_named(self, world: World) -> None:
        ran = world.service.client("deployments", "create", "other", "--model", "nowhere@1")

        assert ran.code == 2
        assert "nowhere" in ran.err.splitlines()[0]
        assert len(ran.err.splitlines()) == 2
        assert "other" not in [each.name for each in world.client.deployments.list()]

    def test_a_deployment_that_is_not_ready_says_what_it_is_doing(self, world: World, deployment: str) -> None:
        model = world.client.deployments.get(deployment).model
        created = world.service.client("deployments", "create", "slow", "--model", model, "--no-wait")

        ran = world.service.client("embed", "red", "-d", "slow")
        world.client.deployments.delete("slow")

        assert created.out == f"slow {model} deploying\n"
        assert ran.code == 4
        first, second = ran.err.splitlines()
        assert first.startswith("error: deployment slow is deploying, not ready")
        assert second == "  wait until `tinyclip-client deployments get slow` reports ready"
