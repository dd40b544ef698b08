"""A student with towers and tokens like SigLIP's is exported and served by other engines as torch computes it."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from tinyclip.schemas.exports import ExportDocument, ExportFormat, unavailable_formats
from tinyclip_workers.exporting.exporter import create_export
from tinyclip_workers.exporting.samples import Samples
from tinyclip_workers.model.files.folders import LoadedModel, load_folder
from tinyclip_workers.model.libraries.own_towers import own_layout, own_state
from tinyclip_workers.model.towers import Clip
from tokenizers import Tokenizer

from tests.workers.exports import MEAN, STD, assert_openvino_serves_the_same, one_conversion, random_images
from tests.workers.families import write_family

TEXTS = ["a red square", "The PHOTO, of_a (blue) circle!", "“emoji” &amp; co", "green", "", "of the photo " * 20]
CHECKED = Samples("test", random_images(4), random_images(8)[4:], TEXTS)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedModel]:
    folder = tmp_path_factory.mktemp("teacher")
    write_family(folder, "SigLIP 2")
    teacher = load_folder(str(folder))
    layout = own_layout(teacher.layout)
    assert layout is not None
    model = Clip(layout).eval()
    model.load_state_dict(own_state(teacher.layout, teacher.model.state_dict()))
    with one_conversion():
        yield LoadedModel(model, layout, teacher.tokenizer, MEAN, STD, "student", "0", teacher.tokenizer_source)


Export = Callable[[ExportFormat], tuple[Path, ExportDocument]]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, student: LoadedModel) -> Export:
    """Return a function that exports the student, into each format once."""

    @cache
    def export_as(format: ExportFormat) -> tuple[Path, ExportDocument]:
        folder = tmp_path_factory.mktemp(format)
        return folder, create_export(student, format, folder, CHECKED)

    return export_as


@pytest.mark.parametrize("format", [ExportFormat.ONNX, ExportFormat.OPENVINO, ExportFormat.TINYCLIP])
def test_an_export_is_checked_against_torch(export: Export, format: ExportFormat) -> None:
    _, document = export(format)

    assert document.check.texts == len(TEXTS)
    assert document.check.image.mean_cosine > 0.9999
    assert document.check.text.mean_cosine > 0.9999


def test_the_exported_tokenizer_prepares_and_pads_texts_as_the_models_does(export: Export, student: LoadedModel) -> None:
    folder, _ = export(ExportFormat.ONNX)

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    assert [each.ids for each in tokenizer.encode_batch(TEXTS)] == student.tokenizer(TEXTS).tolist()


def test_formats_that_cannot_express_it_say_why(student: LoadedModel) -> None:
    refused = unavailable_formats(student.layout)

    assert refused.keys() == {ExportFormat.HF, ExportFormat.OPEN_CLIP}
    assert all("like SigLIP's" in why for why in refused.values())


def test_openvino_serves_what_torch_does(tmp_path: Path, student: LoadedModel) -> None:
    assert_openvino_serves_the_same(student, tmp_path, TEXTS)
