"""Files of tensors that are written and read in part."""

import io
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip_workers.data.reinforcement.embeddings import from_stored, to_stored
from tinyclip_workers.data.reinforcement.tensor_files import NewTensorFile, PageCache, TensorFile
from tinyclip_workers.model.files.headers import WeightsError

SHAPES = {"rows": ("I32", (5,)), "flags": ("U8", (3,)), "table": ("F32", (4, 5, 6)), "hashes": ("U64", (2, 5))}


@pytest.fixture(params=["folder", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactsStore:
    """A store on a disk, and a remote one."""
    if request.param == "folder":
        return ArtifactsStore(str(tmp_path / "store"))
    fsspec.filesystem("memory").store.clear()
    return ArtifactsStore("memory://store")


def write(store: ArtifactsStore, folder: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    file = NewTensorFile(folder / "new", SHAPES)
    for name in SHAPES:
        file[name][...] = rng.integers(0, 100, file[name].shape)
    size = file.save(store, "some/file")
    assert size == len(store.read_bytes("some/file"))
    return {name: file[name].copy() for name in SHAPES}


def test_what_is_written_in_part_is_a_safetensors_file(tmp_path: Path) -> None:
    expected = write(ArtifactsStore(str(tmp_path)), tmp_path)

    found = load_file(tmp_path / "some/file")
    assert all(np.array_equal(found[name].numpy(), expected[name]) for name in SHAPES)


def test_any_part_can_be_read(store: ArtifactsStore, tmp_path: Path) -> None:
    expected = write(store, tmp_path)
    pages = PageCache(store, page_bytes=64, limit=128)
    file = TensorFile.open(store, "some/file", pages)

    for name in SHAPES:
        assert np.array_equal(file.whole(name), expected[name])
    assert np.array_equal(file.part("table", (2, 3)), expected["table"][2, 3])
    assert np.array_equal(file.part("table", (1,), range(2, 4)), expected["table"][1, 2:4])
    assert np.array_equal(file.part("hashes", (1,), range(0, 0)), expected["hashes"][1, :0])
    with pytest.raises(IndexError, match="has shape"):
        file.part("table", (4, 0))
    assert pages.requests == 0 if store.is_local else pages.requests > 2


def test_pages_are_requested_once_and_within_a_limit(tmp_path: Path) -> None:
    fsspec.filesystem("memory").store.clear()
    store = ArtifactsStore("memory://store")
    write(store, tmp_path)
    pages = PageCache(store, page_bytes=1 << 20)
    file = TensorFile.open(store, "some/file", pages)

    for _ in range(3):
        file.whole("table")
    assert pages.requests == 1


def test_a_truncated_file_is_damaged(store: ArtifactsStore, tmp_path: Path) -> None:
    write(store, tmp_path)
    store.write_bytes("some/file", store.read_bytes("some/file")[:-8])

    with pytest.raises((WeightsError, OSError), match="it should have"):
        TensorFile.open(store, "some/file", PageCache(store)).whole("flags")


def test_other_bytes_are_no_file_of_tensors(store: ArtifactsStore) -> None:
    store.write_bytes("some/file", io.BytesIO(b"x" * 100).getvalue())

    with pytest.raises(WeightsError, match="not a safetensors file"):
        TensorFile.open(store, "some/file", PageCache(store))


@pytest.mark.parametrize(("dtype", "error"), [("fp32", 0), ("bf16", 2**-8), ("int8", 1 / 127)])
def test_stored_embeddings_are_nearly_the_same(dtype: str, error: float) -> None:
    x_NE = torch.nn.functional.normalize(torch.randn(20, 64, generator=torch.Generator().manual_seed(0)), dim=1)

    numbers, scales = to_stored(x_NE, dtype)
    again = torch.stack([
        from_stored(numbers[row], dtype, None if scales is None else float(scales[row])).float() for row in range(len(x_NE))
    ])  # fmt: skip

    largest = x_NE.abs().amax(dim=1, keepdim=True)
    assert ((again - x_NE).abs() <= error * largest).all()
