"""Golden queries detect engines and weights that give other embeddings than at registration."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tinyclip_workers.engines.load import load_engine
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.model.files.folders import load_folder
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.replica.metrics import ServingMetrics
from tinyclip_workers.serving.replica.served_model import ServedModel
from tinyclip_workers.versions.golden import GOLDEN_FILE, GoldenMismatch, check_golden_queries, encode_golden

from tests.workers.students import write_student

WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version with its golden queries."""
    folder = write_student(tmp_path_factory.mktemp("golden") / "model")
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    (folder / GOLDEN_FILE).write_bytes(encode_golden(load_folder(str(folder)), images))
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(original, tmp_path / "model")


def change(folder: Path, name: str, by: float) -> None:
    state = load_file(folder / WEIGHTS)
    state[name] = state[name] + by * torch.randn(state[name].shape, generator=torch.Generator().manual_seed(1))
    save_file(state, folder / WEIGHTS)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_a_correct_engine_passes(folder: Path, engine: str) -> None:
    cosines = check_golden_queries(load_engine(str(folder), engine), str(folder))  # type: ignore[arg-type]

    assert cosines == pytest.approx({"images": 1, "texts": 1}, abs=1e-5)


@pytest.mark.parametrize(("tensor", "kind"), [("visual.proj", "images"), ("text_projection", "texts")])
def test_damaged_weights_fail(folder: Path, tensor: str, kind: str) -> None:
    change(folder, tensor, 1.0)

    with pytest.raises(GoldenMismatch, match=f"embeddings of {kind} have a mean cosine of"):
        check_golden_queries(load_engine(str(folder)), str(folder))


def test_the_weights_of_another_model_fail(folder: Path, tmp_path: Path) -> None:
    other = write_student(tmp_path / "other", seed=5)
    (folder / WEIGHTS).write_bytes((other / WEIGHTS).read_bytes())

    with pytest.raises(GoldenMismatch):
        check_golden_queries(load_engine(str(folder)), str(folder))


def test_embeddings_that_are_not_finite_fail(folder: Path) -> None:
    change(folder, "visual.proj", float("nan"))

    with pytest.raises(GoldenMismatch, match="cosine of nan"):
        check_golden_queries(load_engine(str(folder)), str(folder))


class TestWithoutTheFile:
    @pytest.fixture
    def engine(self, folder: Path) -> Engine:
        (folder / GOLDEN_FILE).unlink()
        return load_engine(str(folder))

    def test_finite_embeddings_pass(self, folder: Path, engine: Engine) -> None:
        assert check_golden_queries(engine, str(folder)) == {}

    def test_embeddings_that_are_not_finite_fail(self, folder: Path, engine: Engine) -> None:
        change(folder, "visual.proj", float("nan"))

        with pytest.raises(GoldenMismatch, match="not finite numbers"):
            check_golden_queries(load_engine(str(folder)), str(folder))


def test_a_truncated_file_is_reported_with_its_name(folder: Path) -> None:
    (folder / GOLDEN_FILE).write_bytes((folder / GOLDEN_FILE).read_bytes()[:100])

    with pytest.raises(ValueError, match=r"golden\.npz cannot be read"):
        check_golden_queries(load_engine(str(folder)), str(folder))


def test_a_replica_checks_itself_before_it_serves(folder: Path) -> None:
    change(folder, "visual.proj", 1.0)
    options = ServingOptions(name="demo", model="m@1", model_uri=str(folder), artifacts=str(folder), engine="torch")

    with pytest.raises(GoldenMismatch):
        ServedModel(options, ServingMetrics(options))
