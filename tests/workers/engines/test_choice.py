"""`auto`: its measurements, the engine that it chooses, and the report on the others."""

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tinyclip.schemas.deployments import EngineName
from tinyclip_workers.engines import choice as engine_choice
from tinyclip_workers.engines.builder import ON_CPU, EngineBuilder
from tinyclip_workers.engines.calibration import CALIBRATION_FILE
from tinyclip_workers.engines.load import load_engine
from tinyclip_workers.engines.protocol import Engine, EngineReport
from tinyclip_workers.types import Matrix, Pixels

from tests.workers.served_students import random_squares


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter measurements."""
    monkeypatch.setattr(engine_choice, "SECONDS_PER_ENGINE", 0.05)


class FakeEngine:
    """An engine with a given speed and cosine, which advances a fake clock."""

    embed_dim, embedding_sizes, image_size, logit_scale = 2, (), 32, 1.0

    def __init__(self, clock: list[float], seconds: float, cosine: float, report: EngineReport) -> None:
        self.name, self.report = report.engine, report
        self._clock, self._seconds, self._row = clock, seconds, [cosine, (1 - cosine**2) ** 0.5]

    def encode_image(self, images_BSSC: Pixels) -> Matrix:
        self._clock[0] += self._seconds
        return np.tile(np.array(self._row, np.float32), (len(images_BSSC), 1))

    def encode_text(self, texts: Sequence[str]) -> Matrix:
        raise AssertionError("texts are not measured")


Choose = Callable[..., Engine]


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch, vit_version: Path) -> Choose:
    """Load with `auto` among fake engines with the given milliseconds for each batch and cosines."""

    def load(engines: dict[str, tuple[float, float] | Exception], **options: Any) -> Engine:
        clock = [0.0]

        def build(self: EngineBuilder, name: EngineName, report: EngineReport) -> Engine:
            engine = engines.get(name, ImportError(f"{name}: pip install it"))
            if isinstance(engine, Exception):
                raise engine
            return FakeEngine(clock, engine[0] / 1000, engine[1], report)

        monkeypatch.setattr(EngineBuilder, "build", build)
        monkeypatch.setattr(engine_choice, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
        return load_engine(str(vit_version), "auto", **options)

    return load


class TestChoice:
    def test_the_fastest_engine_with_a_sufficient_cosine_is_chosen(self, choose: Choose) -> None:
        engines = {"torch": (80.0, 1.0), "openvino": (50.0, 1.0), "openvino-bf16": (20.0, 0.98), "openvino-int8": (25.0, 0.995)}

        report = choose(engines).report

        assert (report.engine, report.asked, report.min_cosine, report.pictures) == ("openvino-int8", "auto", 0.99, 8)
        assert report.reason.startswith("320 images/s at batch 8, 3.2 times torch's in fp32, at a mean cosine of 0.995 to it")
        trials = {trial.engine: trial for trial in report.trials}
        assert [*trials] == [*ON_CPU]
        assert trials["openvino-bf16"].refused == "its mean cosine to torch is 0.98, below 0.99"
        assert trials["torch-bf16"].refused == "torch-bf16: pip install it"
        assert trials["openvino"].images_per_second == pytest.approx(160, abs=0.2)
        assert trials["openvino-int8"].refused == ""

    def test_the_cosine_threshold_is_a_setting(self, choose: Choose) -> None:
        engines = {"torch": (80.0, 1.0), "openvino-int8": (25.0, 0.995)}

        assert choose(engines, min_cosine=0.999).name == "torch"
        assert choose(engines, min_cosine=0.9).name == "openvino-int8"

    def test_an_engine_that_rounds_must_be_clearly_faster(self, choose: Choose) -> None:
        engines = {"torch": (80.0, 1.0), "openvino": (26.0, 1.0), "openvino-int8": (25.0, 0.995)}

        report = choose(engines).report

        assert report.engine == "openvino"
        assert "openvino-int8 rounds, and is not 1.1 times as fast" in report.reason

    def test_an_exact_engine_with_wrong_embeddings_is_not_chosen(self, choose: Choose) -> None:
        assert choose({"torch": (80.0, 1.0), "openvino": (26.0, 0.3)}).name == "torch"

    def test_an_engine_that_cannot_be_built_is_reported(self, choose: Choose) -> None:
        report = choose({"torch": (80.0, 1.0), "openvino": RuntimeError("no such instruction")}).report

        assert report.engine == "torch"
        assert {t.engine: t.refused for t in report.trials}["openvino"] == "cannot be built: RuntimeError: no such instruction"

    def test_a_model_that_torch_cannot_run_is_an_error(self, choose: Choose) -> None:
        with pytest.raises(RuntimeError, match="broken"):
            choose({"torch": RuntimeError("broken"), "openvino": (26.0, 1.0)})


@pytest.mark.usefixtures("quick")
def test_the_real_engines_are_measured(vit_version: Path) -> None:
    engine = load_engine(str(vit_version), "auto", min_cosine=0.95)

    trials = {trial.engine: trial for trial in engine.report.trials}
    assert engine.name == engine.report.engine
    assert all(trial.images_per_second and trial.cosine for trial in trials.values()), trials
    fastest_exact = max(trials[name].images_per_second or 0 for name in ("torch", "openvino"))
    assert (trials[engine.name].images_per_second or 0) >= fastest_exact
    assert trials["openvino"].cosine == pytest.approx(1, abs=1e-6)
    assert engine.encode_image(random_squares(2, 32)).shape == (2, 16)


@pytest.mark.usefixtures("quick")
def test_without_calibration_images_only_exact_engines_are_considered(vit_version: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(vit_version, tmp_path / "old")
    (folder / CALIBRATION_FILE).unlink()

    report = load_engine(str(folder), "auto").report

    assert report.engine in ("torch", "openvino")
    assert report.pictures == 0
    for trial in report.trials:
        assert (trial.refused == "") == (trial.engine in ("torch", "openvino"))
        assert trial.refused == "" or "no calibration.npz to compare it on, so only exact engines" in trial.refused


@pytest.mark.usefixtures("quick")
def test_without_openvino_torch_serves_and_the_report_has_the_command(vit_version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tinyclip_workers.engines.openvino_engine", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)

    report = load_engine(str(vit_version), "auto", min_cosine=1.0).report

    assert report.engine == "torch"
    assert "pip install 'tinyclip[openvino]'" in report.reason
