"""Students of other architectures are exported and served by engines other than torch, where these convert."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tinyclip.schemas.exports import ExportFormat
from tinyclip.schemas.spec import StudentSpec
from tinyclip_workers.exporting.exporter import create_export
from tinyclip_workers.exporting.samples import Samples
from tinyclip_workers.model.architecture import build_clip, named_layout
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.tokenizers import make_tokenizer

from tests.workers.exports import MEAN, STD, TEXTS, assert_openvino_serves_the_same, one_conversion, random_images
from tests.workers.presets import small_presets

PRESETS = ("small-MobileCLIP2", "small-ConvNeXt")
"""One whose text tower reads its padding, and one whose does not."""
CHECKED = Samples("test", random_images(4), random_images(8)[4:], TEXTS)


@pytest.fixture(scope="module", params=PRESETS)
def student(request: pytest.FixtureRequest) -> Iterator[LoadedModel]:
    sizes = {"image": {"image_size": 64}, "text": {"context_length": 12}, "embed_dim": 32}
    with small_presets(), one_conversion():
        layout = named_layout(StudentSpec.model_validate({"preset": request.param, **sizes}))
        torch.manual_seed(0)
        yield LoadedModel(build_clip(layout).eval(), layout, make_tokenizer(layout), MEAN, STD, request.param, request.param)


@pytest.mark.parametrize("format", [ExportFormat.OPEN_CLIP, ExportFormat.OPENVINO])
def test_an_export_is_checked_against_torch(tmp_path: Path, student: LoadedModel, format: ExportFormat) -> None:
    check_export(tmp_path, student, format)


# ONNX has a library's towers with the one, and texts without their padding with students of our own.
ONNX_PRESETS = [PRESETS[0], pytest.param(PRESETS[1], marks=pytest.mark.long)]


@pytest.mark.parametrize("student", ONNX_PRESETS, indirect=True)
def test_an_onnx_export_is_checked_against_torch(tmp_path: Path, student: LoadedModel) -> None:
    check_export(tmp_path, student, ExportFormat.ONNX)


def check_export(folder: Path, student: LoadedModel, format: ExportFormat) -> None:
    document = create_export(student, format, folder, CHECKED)

    assert document.check.image.mean_cosine > 0.9999
    assert document.check.text.mean_cosine > 0.9999
    assert document.check.own_preprocessing.mean_cosine > 0.999


def test_openvino_serves_what_torch_does(tmp_path: Path, student: LoadedModel) -> None:
    assert_openvino_serves_the_same(student, tmp_path, TEXTS)
