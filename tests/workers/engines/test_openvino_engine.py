"""Towers as OpenVINO IR give what torch gives, for every kind of student."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tinyclip_workers.engines.openvino_engine import (
    CompiledTower,
    IrModel,
    convert_image_tower,
    convert_text_tower,
    quantize_image_tower,
    save_model,
)
from tinyclip_workers.model.folders import LoadedModel, load_folder
from tinyclip_workers.model.preprocessing import normalize
from tinyclip_workers.types import Matrix

from tests.workers.served_students import KINDS, random_squares, write_kind

TEXTS = ["a cat", "a long text about a dog that sleeps under the old tree in the garden of our neighbours", "x"]


@pytest.fixture(scope="module", params=KINDS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_folder(str(write_kind(tmp_path_factory.mktemp("student"), request.param)))


@pytest.fixture(scope="module")
def image_model(loaded: LoadedModel) -> IrModel:
    return convert_image_tower(loaded)


def torch_images(loaded: LoadedModel, pictures_BSSC: np.ndarray) -> Matrix:
    pixels = normalize(torch.from_numpy(pictures_BSSC).permute(0, 3, 1, 2), loaded.image_mean, loaded.image_std)
    with torch.no_grad():
        return F.normalize(loaded.model.encode_image(pixels), dim=-1).numpy()


def test_image_towers_in_any_batch(loaded: LoadedModel, image_model: IrModel, tmp_path: Path) -> None:
    seen = random_squares(5, loaded.layout.image.image_size)
    save_model(image_model, tmp_path / "image.xml")

    tower = CompiledTower(tmp_path / "image.xml", threads=1)

    whole = torch_images(loaded, seen)
    for part in (slice(0, 5), slice(0, 1), slice(2, 5)):
        np.testing.assert_allclose(tower(seen[part]), whole[part], atol=2e-6)


def test_text_towers_need_no_padding(loaded: LoadedModel) -> None:
    tokens = loaded.tokenizer(TEXTS)
    tower = CompiledTower(convert_text_tower(loaded), threads=1)

    with torch.no_grad():
        wanted = F.normalize(loaded.model.encode_text(tokens), dim=-1).numpy()
    np.testing.assert_allclose(tower(tokens.numpy()), wanted, atol=2e-6)
    np.testing.assert_allclose(tower(tokens[:1, :4].numpy()), wanted[:1], atol=2e-6)


def test_int8_is_near_and_leaves_the_original_alone(loaded: LoadedModel, image_model: IrModel) -> None:
    seen = random_squares(24, loaded.layout.image.image_size)
    before = CompiledTower(image_model, threads=1)(seen)

    quantized = quantize_image_tower(image_model, seen[:16], transformer=loaded.layout.image.kind == "vit")

    rows, wanted = CompiledTower(quantized, threads=1)(seen), torch_images(loaded, seen)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert (rows * wanted).sum(axis=1).mean() > 0.99
    assert weight_types(quantized) - weight_types(image_model) == {"i8"}
    np.testing.assert_array_equal(CompiledTower(image_model, threads=1)(seen), before)


def weight_types(model: IrModel) -> set[str]:
    return {op.get_element_type().to_string() for op in model.get_ops() if op.get_type_name() == "Constant"} - {"i32", "u8"}


def test_int8_leaves_patches_or_stem_and_the_last_product_alone(loaded: LoadedModel, image_model: IrModel) -> None:
    transformer = loaded.layout.image.kind == "vit"
    seen = random_squares(8, loaded.layout.image.image_size)

    quantized = quantize_image_tower(image_model, seen, transformer=transformer)

    convolutions = [in_int8(op) for op in quantized.get_ordered_ops() if op.get_type_name() == "Convolution"]
    products = [in_int8(op) for op in quantized.get_ordered_ops() if op.get_type_name() == "MatMul"]
    assert convolutions == [i >= 3 for i in range(len(convolutions))]
    assert products[0]
    assert not products[-1]


def in_int8(op: Any) -> bool:
    return bool(op.input_value(0).get_node().get_type_name() == "FakeQuantize")


def test_int8_needs_pictures(image_model: IrModel) -> None:
    with pytest.raises(ValueError, match="calibrated on images"):
        quantize_image_tower(image_model, random_squares(1, 32)[:0], transformer=True)
