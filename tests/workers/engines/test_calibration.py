"""The calibration images that a job stores with its version; a version without them is complete."""

import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save
from tinyclip.artifacts.documents import JobDocument
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec
from tinyclip_workers.data.samples import is_held_out
from tinyclip_workers.engines.calibration import (
    CALIBRATION_FILE,
    image_count,
    read_calibration,
    sample_calibration_images,
    split_calibration,
)
from tinyclip_workers.runtime.attempt import FinishedStudent, JobAttempt
from tinyclip_workers.versions.writer import write_student_version

from tests.workers.models import tiny_layout, tiny_model, write_folder
from tests.workers.students import encoded, random_image, square_of, write_shard

SIZE = 32


def shards(folder: Path, count: int, samples: int, broken: int = 0) -> str:
    for shard in range(count):
        files = {
            f"{shard}-{n:03}": {
                "png": encoded(random_image(shard * 1000 + n)) if n >= broken else b"not an image", "txt": b"a caption",
            }
            for n in range(samples)
        }
        write_shard(folder / f"train-{shard:02}.tar", files)
    return str(folder / "train-*.tar")


def spec_of(folder: Path, train: dict[str, object]) -> JobSpec:
    write_folder(folder / "teacher", tiny_model(), tiny_layout())
    return JobSpec.model_validate(
        {
            "name": "small", "teacher": {"model": f"local-dir:{folder}/teacher"}, "data": {"train": train},
            "stages": [{"name": "half", "student": {"text": {"layers": 1}}, "train": {"steps": 3}}],
        }
    )  # fmt: skip


def test_images_come_from_several_shards_in_the_students_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyclip_workers.engines.calibration.MAX_IMAGES", 64)
    data = spec_of(tmp_path, {"shards": shards(tmp_path, 3, 40, broken=2)}).data

    images = sample_calibration_images(data, SIZE)

    assert (images.shape, images.dtype) == ((64, SIZE, SIZE, 3), np.uint8)
    for row, seed in ((0, 2), (21, 23), (22, 1002), (63, 2021)):
        np.testing.assert_array_equal(images[row], square_of(random_image(seed), SIZE))


@pytest.mark.parametrize(("size", "count"), [(32, 320), (64, 320), (128, 203), (224, 66), (448, 64)])
def test_there_are_more_small_images_than_large_ones(size: int, count: int) -> None:
    assert image_count(size) == count


def test_held_out_samples_are_not_used(tmp_path: Path) -> None:
    data = spec_of(tmp_path, {"shards": shards(tmp_path, 1, 40), "holdout": 0.5}).data

    images = sample_calibration_images(data, SIZE)

    trained = [n for n in range(40) if not is_held_out(f"0-{n:03}", 0.5)]
    assert 5 < len(trained) < 35
    np.testing.assert_array_equal(images, [square_of(random_image(n), SIZE) for n in trained])


@pytest.mark.parametrize("problem", ["missing", "not a tar"])
def test_unreadable_shards_give_no_images(tmp_path: Path, problem: str) -> None:
    path = tmp_path / "train.tar"
    if problem == "not a tar":
        path.write_bytes(random.Random(0).randbytes(2000))

    assert sample_calibration_images(spec_of(tmp_path, {"shards": str(path)}).data, SIZE).shape == (0, SIZE, SIZE, 3)


@pytest.mark.parametrize("samples", [30, 5])
def test_a_version_has_calibration_images_if_there_are_enough(tmp_path: Path, samples: int) -> None:
    spec = spec_of(tmp_path, {"shards": shards(tmp_path, 1, samples)})
    document = JobDocument(job="job_1", name="small", spec=spec, model_name="small", model_version=1)
    run = JobAttempt(ArtifactsStore(str(tmp_path / "store")), document, 1)

    version = write_student_version(run, FinishedStudent(tiny_layout(), save(tiny_model().state_dict()), {}))

    images = read_calibration(str(tmp_path / "store/models/small/1"), SIZE)
    enough = samples == 30
    assert (CALIBRATION_FILE in {file.path for file in version.files}) == enough
    assert ("calibration.npz" in (tmp_path / "store/models/small/1/README.md").read_text()) == enough
    assert (images is not None) == enough
    if images is not None:
        calibrated, compared = split_calibration(images)
        assert (len(calibrated), len(compared)) == (23, 7)
        np.testing.assert_array_equal(compared[0], square_of(random_image(3), SIZE))
