"""Every engine gives the embeddings of the model, for every kind of student; unusable folders are reported."""

import json
import shutil
import sys
from pathlib import Path
from typing import get_args

import fsspec
import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from tinyclip.schemas.deployments import EngineName
from tinyclip_workers.engines.builder import ON_CPU
from tinyclip_workers.engines.calibration import CALIBRATION_FILE, encode_calibration
from tinyclip_workers.engines.load import load_engine
from tinyclip_workers.engines.openvino_engine import MissingExtra
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.model.files.folders import LoadedModel, load_folder
from tinyclip_workers.model.preprocessing import normalize

from tests.workers.served_students import KINDS, random_squares, write_kind
from tests.workers.students import encoded, random_image

TEXTS = ["a cat", "a very long text about a dog that sleeps under the old tree in the garden of our neighbours", "x"]
IMAGES = random_squares(16, 32)[8:]
MIN_COSINE = {"torch": 1 - 1e-6, "openvino": 1 - 1e-6, "torch-bf16": 0.999, "openvino-bf16": 0.999, "openvino-int8": 0.99}


# A folded model has every kind of block of a ViT.
@pytest.fixture(scope="module", params=[pytest.param(kind, marks=[pytest.mark.long] * (kind == "vit")) for kind in KINDS])
def version(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_kind(tmp_path_factory.mktemp("student"), request.param)
    (folder / CALIBRATION_FILE).write_bytes(encode_calibration(random_squares(32, 32)))
    return folder


def images_of(loaded: LoadedModel) -> np.ndarray:
    pixels = normalize(torch.from_numpy(IMAGES).permute(0, 3, 1, 2), loaded.image_mean, loaded.image_std)
    with torch.no_grad():
        return F.normalize(loaded.model.encode_image(pixels), dim=-1).numpy()


def texts_of(loaded: LoadedModel) -> np.ndarray:
    with torch.no_grad():
        return F.normalize(loaded.model.encode_text(loaded.tokenizer(TEXTS)), dim=-1).numpy()


@pytest.mark.parametrize("name", ON_CPU)
def test_an_engine_gives_the_embeddings_of_the_model(version: Path, name: EngineName) -> None:
    loaded = load_folder(str(version))

    engine = load_engine(str(version), name)

    images = engine.encode_image(IMAGES)
    assert (engine.name, engine.embed_dim, engine.image_size) == (name, 16, 32)
    assert (images.shape, images.dtype) == ((8, 16), np.float32)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    assert (images * images_of(loaded)).sum(axis=1).mean() >= MIN_COSINE[name]
    np.testing.assert_allclose(engine.encode_text(TEXTS), texts_of(loaded), atol=2e-6)
    np.testing.assert_allclose(np.concatenate([engine.encode_text([text]) for text in TEXTS]), texts_of(loaded), atol=2e-6)
    assert engine.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)


def test_every_engine_has_a_name_in_the_api() -> None:
    assert set(get_args(EngineName)) == {"auto", *ON_CPU}


def test_images_and_texts_equal_open_clips(folder: Path) -> None:
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    engine, seen = load_engine(str(folder)), [random_image(seed, (32, 32)) for seed in range(3)]

    with torch.no_grad():
        images = model.eval().encode_image(torch.stack([transform(image) for image in seen]), normalize=True)
        texts = model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS), normalize=True)
    np.testing.assert_allclose(engine.encode_image(np.stack([np.asarray(image) for image in seen])), images.numpy(), atol=1e-5)
    np.testing.assert_allclose(engine.encode_text(TEXTS), texts.numpy(), atol=1e-5)


def test_a_model_in_a_remote_store_gives_the_same_embeddings(folder: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/models/student/1", recursive=True)
    try:
        remote = load_engine("memory://models/student/1")
    finally:
        memory.rm("/models", recursive=True)

    np.testing.assert_array_equal(remote.encode_text(TEXTS), load_engine(str(folder)).encode_text(TEXTS))


def test_int8_without_calibration_images_is_refused_with_the_alternatives(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no calibration\.npz .* use engine auto or openvino"):
        load_engine(str(folder), "openvino-int8")


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra were not installed."""
    monkeypatch.delitem(sys.modules, "tinyclip_workers.engines.openvino_engine", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)


@pytest.mark.usefixtures("without_openvino")
def test_a_missing_extra_is_reported_with_the_install_command(folder: Path) -> None:
    with pytest.raises(ImportError, match=r"pip install 'tinyclip\[openvino\]'") as missing:
        load_engine(str(folder), "openvino")

    assert type(missing.value).__name__ == MissingExtra.__name__


def test_a_folder_without_weights_is_reported(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "open_clip_config.json", tmp_path)

    with pytest.raises(FileNotFoundError, match=r"has no weights; put one of open_clip_model\.safetensors"):
        load_engine(str(tmp_path))


def test_a_broken_config_is_reported(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "open_clip_model.safetensors", tmp_path)
    (tmp_path / "open_clip_config.json").write_text("{")

    with pytest.raises(ValueError, match=r"open_clip_config\.json is not JSON"):
        load_engine(str(tmp_path))


@pytest.mark.parametrize(
    "data",
    [b"", b"no zip", encode_calibration(random_squares(16, 16)), encode_calibration(random_squares(3, 32)),
     encoded(random_image(0))],
)
def test_an_unusable_calibration_file_is_ignored(folder: Path, tmp_path: Path, data: bytes) -> None:
    shutil.copytree(folder, tmp_path / "1")
    (tmp_path / "1" / CALIBRATION_FILE).write_bytes(data)

    engine: Engine = load_engine(str(tmp_path / "1"), "torch")

    assert json.loads(engine.report.model_dump_json())["pictures"] == 0
