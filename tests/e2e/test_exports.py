"""A finished student in the files of another library, through the command line and a Ray job."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from tests.e2e.world import Undisturbed, World
from tests.workers.shapes_data import draw_shape

pytestmark = [pytest.mark.timeout(900), pytest.mark.ray]


def test_an_exported_and_pulled_student_embeds_what_the_deployment_embeds(
    world: World, undisturbed: Undisturbed, deployment: str
) -> None:
    assert undisturbed.job.model is not None
    model, pulled = f"shapes@{undisturbed.job.model.version}", world.folder / "onnx"

    exported = world.service.client("models", "export", model, "--format", "onnx")
    got = world.service.client("models", "pull", model, pulled, "--export", "onnx")

    assert (exported.code, got.code) == (0, 0), exported.out + exported.err + got.err
    assert [cell.strip() for cell in exported.out.splitlines()[2].split("|")[1:4]] == ["onnx", model, "succeeded"]
    ours = world.client.deployments.open(deployment).embed_images([_picture(world)])
    np.testing.assert_allclose(_embedded(pulled, _picture(world)), ours, atol=2e-5)


def _picture(world: World) -> Path:
    """Return an image of the student's input size, so that nothing is resized."""
    file = world.folder / "exported.png"
    draw_shape("green", "bar", 32).save(file)
    return file


def _embedded(folder: Path, picture: Path) -> np.ndarray:
    """By ONNX Runtime and the words of `settings.json` alone."""
    preprocess = json.loads((folder / "settings.json").read_text())["preprocess"]
    pixels_HWC = np.asarray(Image.open(picture).convert("RGB"), np.float32) / 255
    pixels_HWC = (pixels_HWC - np.float32(preprocess["mean"])) / np.float32(preprocess["std"])
    session = onnxruntime.InferenceSession(folder / "image.onnx")
    return session.run(["image_embeds"], {"pixel_values": pixels_HWC.transpose(2, 0, 1)[None]})[0]

