"""The engine gives what open_clip itself gives for the same folder."""

import shutil
from pathlib import Path

import fsspec
import numpy as np
import open_clip
import pytest
import torch
from tinyclip_workers.serving.engine import Engine, load_engine

from tests.workers.students import picture, write_student

TEXTS = ["a cat", "a very long text about a dog that sleeps under the old tree in the garden of our neighbours", "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_student(tmp_path_factory.mktemp("models") / "student" / "1")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return load_engine(str(folder))


def test_image_embeddings_equal_open_clips(engine: Engine, folder: Path) -> None:
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    pictures = [picture(seed, size) for seed, size in enumerate([(50, 40), (32, 32), (20, 90)])]

    ours = engine.encode_image(torch.stack([engine.preprocess(image) for image in pictures]))

    with torch.no_grad():
        theirs = model.eval().encode_image(torch.stack([transform(image) for image in pictures]), normalize=True)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


def test_trimmed_text_embeddings_equal_open_clips(engine: Engine, folder: Path) -> None:
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)

    together = engine.encode_text(TEXTS)
    alone = np.concatenate([engine.encode_text([text]) for text in TEXTS])

    with torch.no_grad():
        theirs = model.encode_text(tokens, normalize=True).numpy()
    np.testing.assert_allclose(together, theirs, atol=1e-5)
    np.testing.assert_allclose(alone, theirs, atol=1e-5)


def test_logit_scale_is_the_models_own(engine: Engine) -> None:
    assert engine.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
    assert engine.embed_dim == 24


def test_a_model_in_a_remote_store_is_the_same(engine: Engine, folder: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/models/student/1", recursive=True)
    try:
        remote = load_engine("memory://models/student/1")
    finally:
        memory.rm("/models", recursive=True)

    np.testing.assert_array_equal(remote.encode_text(TEXTS), engine.encode_text(TEXTS))


def test_a_folder_without_weights_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "open_clip_config.json", tmp_path)

    with pytest.raises(FileNotFoundError, match=r"no open_clip_model\.safetensors"):
        load_engine(str(tmp_path))


def test_a_folder_with_a_broken_config_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "open_clip_model.safetensors", tmp_path)
    (tmp_path / "open_clip_config.json").write_text("{")

    with pytest.raises(ValueError, match=r"open_clip_config\.json is not JSON"):
        load_engine(str(tmp_path))
