"""Converted and quantised towers give the embeddings of torch, for every kind of student."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tinyclip_workers.engines.builder import EngineBuilder
from tinyclip_workers.engines.openvino_engine import (
    CompiledTower,
    IrModel,
    quantize_image_tower,
    read_model,
    save_model,
)
from tinyclip_workers.model.files.folders import LoadedModel, load_folder
from tinyclip_workers.model.preprocessing import normalize
from tinyclip_workers.types import Matrix, Pixels

from tests.workers.served_students import KINDS, random_squares, write_kind

TEXTS = ["a cat", "a long text about a dog that sleeps under the old tree in the garden of our neighbours", "x"]


@pytest.fixture(scope="module", params=KINDS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_folder(str(write_kind(tmp_path_factory.mktemp("student"), request.param)))


@pytest.fixture(scope="module")
def towers(loaded: LoadedModel) -> Path:
    """Both towers, converted once for all tests."""
    return EngineBuilder(loaded, None).converted_towers()


@pytest.fixture(scope="module")
def image_model(towers: Path) -> IrModel:
    return read_model(towers / "image.xml")


@pytest.fixture(scope="module")
def quantized(loaded: LoadedModel, image_model: IrModel) -> IrModel:
    """The image tower in int8, calibrated on the first 16 images."""
    return quantize_image_tower(image_model, images_for(loaded)[:16], transformer=loaded.layout.image.kind == "vit")


def images_for(loaded: LoadedModel) -> Pixels:
    return random_squares(24, loaded.layout.image_size)


def torch_images(loaded: LoadedModel, images_BSSC: Pixels) -> Matrix:
    pixels = normalize(torch.from_numpy(images_BSSC).permute(0, 3, 1, 2), loaded.image_mean, loaded.image_std)
    with torch.no_grad():
        return F.normalize(loaded.model.encode_image(pixels), dim=-1).numpy()


def test_an_image_tower_accepts_any_batch(loaded: LoadedModel, image_model: IrModel, tmp_path: Path) -> None:
    images = images_for(loaded)[:5]
    save_model(image_model, tmp_path / "image.xml")

    tower = CompiledTower(tmp_path / "image.xml", threads=1)

    whole = torch_images(loaded, images)
    for part in (slice(0, 5), slice(0, 1), slice(2, 5)):
        np.testing.assert_allclose(tower(images[part]), whole[part], atol=2e-6)


def test_a_text_tower_needs_no_padding(loaded: LoadedModel, towers: Path) -> None:
    tokens = loaded.tokenizer(TEXTS)
    tower = CompiledTower(towers / "text.xml", threads=1)

    with torch.no_grad():
        expected = F.normalize(loaded.model.encode_text(tokens), dim=-1).numpy()
    np.testing.assert_allclose(tower(tokens.numpy()), expected, atol=2e-6)
    np.testing.assert_allclose(tower(tokens[:1, :4].numpy()), expected[:1], atol=2e-6)


def test_int8_is_close_and_the_original_is_not_modified(
    loaded: LoadedModel, image_model: IrModel, quantized: IrModel, towers: Path
) -> None:
    images = images_for(loaded)
    original = read_model(towers / "image.xml")

    rows, expected = CompiledTower(quantized, threads=1)(images), torch_images(loaded, images)

    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert (rows * expected).sum(axis=1).mean() > 0.99
    assert weight_types(quantized) - weight_types(image_model) == {"i8"}
    np.testing.assert_array_equal(CompiledTower(image_model, threads=1)(images), CompiledTower(original, threads=1)(images))


def weight_types(model: IrModel) -> set[str]:
    return {op.get_element_type().to_string() for op in model.get_ops() if op.get_type_name() == "Constant"} - {"i32", "u8"}


def test_patches_or_stem_and_the_last_product_are_not_in_int8(quantized: IrModel) -> None:
    convolutions = [in_int8(op) for op in quantized.get_ordered_ops() if op.get_type_name() == "Convolution"]
    products = [in_int8(op) for op in quantized.get_ordered_ops() if op.get_type_name() == "MatMul"]
    assert convolutions == [i >= 3 for i in range(len(convolutions))]
    assert products[0]
    assert not products[-1]


def in_int8(op: Any) -> bool:
    return bool(op.input_value(0).get_node().get_type_name() == "FakeQuantize")


def test_int8_requires_calibration_images(image_model: IrModel) -> None:
    with pytest.raises(ValueError, match="calibrated on images"):
        quantize_image_tower(image_model, random_squares(1, 32)[:0], transformer=True)
