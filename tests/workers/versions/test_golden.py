"""What a model answered when it was registered, asked again by a replica before it serves."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tinyclip_workers.engines.load import load_engine
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.model.folders import load_folder
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.replica.metrics import ServingMetrics
from tinyclip_workers.serving.replica.served_model import ServedModel
from tinyclip_workers.versions.golden import GOLDEN_FILE, GoldenMismatch, check_golden_queries, encode_golden

from tests.workers.students import write_student

WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A version with its golden queries."""
    folder = write_student(tmp_path / "model")
    pictures = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    (folder / GOLDEN_FILE).write_bytes(encode_golden(load_folder(str(folder)), pictures))
    return folder


def change(folder: Path, name: str, by: float) -> None:
    state = load_file(folder / WEIGHTS)
    state[name] = state[name] + by * torch.randn(state[name].shape, generator=torch.Generator().manual_seed(1))
    save_file(state, folder / WEIGHTS)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_an_engine_that_is_right_passes(folder: Path, engine: str) -> None:
    cosines = check_golden_queries(load_engine(str(folder), engine), str(folder))  # type: ignore[arg-type]

    assert cosines == pytest.approx({"pictures": 1, "texts": 1}, abs=1e-5)


@pytest.mark.parametrize(("tensor", "what"), [("visual.proj", "pictures"), ("text_projection", "texts")])
def test_damaged_weights_do_not(folder: Path, tensor: str, what: str) -> None:
    change(folder, tensor, 1.0)

    with pytest.raises(GoldenMismatch, match=f"embeddings of {what} have a mean cosine of"):
        check_golden_queries(load_engine(str(folder)), str(folder))


def test_the_weights_of_another_model_do_not(folder: Path, tmp_path: Path) -> None:
    other = write_student(tmp_path / "other", seed=5)
    (folder / WEIGHTS).write_bytes((other / WEIGHTS).read_bytes())

    with pytest.raises(GoldenMismatch):
        check_golden_queries(load_engine(str(folder)), str(folder))


def test_embeddings_that_are_no_numbers_do_not(folder: Path) -> None:
    change(folder, "visual.proj", float("nan"))

    with pytest.raises(GoldenMismatch, match="cosine of nan"):
        check_golden_queries(load_engine(str(folder)), str(folder))


class TestWithoutTheFile:
    @pytest.fixture
    def engine(self, folder: Path) -> Engine:
        (folder / GOLDEN_FILE).unlink()
        return load_engine(str(folder))

    def test_any_numbers_pass(self, folder: Path, engine: Engine) -> None:
        assert check_golden_queries(engine, str(folder)) == {}

    def test_what_is_no_number_does_not(self, folder: Path, engine: Engine) -> None:
        change(folder, "visual.proj", float("nan"))

        with pytest.raises(GoldenMismatch, match="not finite numbers"):
            check_golden_queries(load_engine(str(folder)), str(folder))


def test_a_torn_file_is_named(folder: Path) -> None:
    (folder / GOLDEN_FILE).write_bytes((folder / GOLDEN_FILE).read_bytes()[:100])

    with pytest.raises(ValueError, match=r"golden\.npz cannot be read"):
        check_golden_queries(load_engine(str(folder)), str(folder))


def test_a_replica_asks_before_it_serves(folder: Path) -> None:
    change(folder, "visual.proj", 1.0)
    options = ServingOptions(name="demo", model="m@1", model_uri=str(folder), artifacts=str(folder), engine="torch")

    with pytest.raises(GoldenMismatch):
        ServedModel(options, ServingMetrics(options))
