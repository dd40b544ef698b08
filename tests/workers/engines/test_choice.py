"""`auto`: what is measured, what is taken, and what the report says of the others; and the cache of conversions."""

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tinyclip.schemas.deployments import EngineName
from tinyclip_workers.engines import builder as engine_builder
from tinyclip_workers.engines import choice as engine_choice
from tinyclip_workers.engines.builder import ON_CPU, EngineBuilder
from tinyclip_workers.engines.cache import ENGINE_CACHE, MANIFEST, MAX_ENTRIES, default_folder, get_or_create
from tinyclip_workers.engines.calibration import CALIBRATION_FILE, encode_calibration
from tinyclip_workers.engines.load import load_engine
from tinyclip_workers.engines.protocol import Engine, EngineReport
from tinyclip_workers.types import Matrix, Pixels

from tests.workers.served_students import random_squares, write_kind


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_kind(tmp_path_factory.mktemp("student"), "vit")
    (folder / CALIBRATION_FILE).write_bytes(encode_calibration(random_squares(32, 32)))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


class Pretended:
    """An engine with a speed and a cosine as the test wants them; the clock below goes on by what it says."""

    embed_dim, image_size, logit_scale = 2, 32, 1.0

    def __init__(self, clock: list[float], seconds: float, cosine: float, report: EngineReport) -> None:
        self.name, self.report = report.engine, report
        self._clock, self._seconds, self._row = clock, seconds, [cosine, (1 - cosine**2) ** 0.5]

    def encode_image(self, images_BSSC: Pixels) -> Matrix:
        self._clock[0] += self._seconds
        return np.tile(np.array(self._row, np.float32), (len(images_BSSC), 1))

    def encode_text(self, texts: Sequence[str]) -> Matrix:
        raise AssertionError("texts are not measured")


def choose(
    monkeypatch: pytest.MonkeyPatch, version: Path, engines: dict[str, tuple[float, float] | Exception], **kw: Any
) -> Engine:
    """`auto` among engines of these milliseconds a batch and cosines."""
    clock = [0.0]

    def build(self: EngineBuilder, name: EngineName, report: EngineReport) -> Engine:
        told = engines.get(name, ImportError(f"{name}: pip install it"))
        if isinstance(told, Exception):
            raise told
        return Pretended(clock, told[0] / 1000, told[1], report)

    monkeypatch.setattr(EngineBuilder, "build", build)
    monkeypatch.setattr(engine_choice, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    return load_engine(str(version), "auto", **kw)


class TestChoice:
    def test_the_fastest_that_is_near_enough(self, monkeypatch: pytest.MonkeyPatch, version: Path) -> None:
        told = {"torch": (80.0, 1.0), "openvino": (50.0, 1.0), "openvino-bf16": (20.0, 0.98), "openvino-int8": (25.0, 0.995)}

        report = choose(monkeypatch, version, told).report

        assert (report.engine, report.asked, report.min_cosine, report.pictures) == ("openvino-int8", "auto", 0.99, 8)
        assert report.reason.startswith("320 images/s at batch 8, 3.2 times torch's in fp32, at a mean cosine of 0.995 to it")
        trials = {trial.engine: trial for trial in report.trials}
        assert [*trials] == [*ON_CPU]
        assert trials["openvino-bf16"].refused == "its mean cosine to torch is 0.98, below 0.99"
        assert trials["torch-bf16"].refused == "torch-bf16: pip install it"
        assert trials["openvino"].images_per_second == pytest.approx(160, abs=0.2)
        assert trials["openvino-int8"].refused == ""

    def test_the_threshold_is_a_setting(self, monkeypatch: pytest.MonkeyPatch, version: Path) -> None:
        told = {"torch": (80.0, 1.0), "openvino-int8": (25.0, 0.995)}

        assert choose(monkeypatch, version, told, min_cosine=0.999).name == "torch"
        assert choose(monkeypatch, version, told, min_cosine=0.9).name == "openvino-int8"

    def test_rounding_has_to_pay(self, monkeypatch: pytest.MonkeyPatch, version: Path) -> None:
        told = {"torch": (80.0, 1.0), "openvino": (26.0, 1.0), "openvino-int8": (25.0, 0.995)}

        report = choose(monkeypatch, version, told).report

        assert report.engine == "openvino"
        assert "openvino-int8 rounds, and is not 1.1 times as fast" in report.reason

    def test_an_exact_engine_that_is_wrong_here_is_not_taken(self, monkeypatch: pytest.MonkeyPatch, version: Path) -> None:
        assert choose(monkeypatch, version, {"torch": (80.0, 1.0), "openvino": (26.0, 0.3)}).name == "torch"

    def test_one_that_cannot_be_built_is_told(self, monkeypatch: pytest.MonkeyPatch, version: Path) -> None:
        report = choose(monkeypatch, version, {"torch": (80.0, 1.0), "openvino": RuntimeError("no such instruction")}).report

        assert report.engine == "torch"
        assert {t.engine: t.refused for t in report.trials}["openvino"] == "cannot be built: RuntimeError: no such instruction"

    def test_a_model_that_torch_cannot_run_is_an_error(self, monkeypatch: pytest.MonkeyPatch, version: Path) -> None:
        with pytest.raises(RuntimeError, match="broken"):
            choose(monkeypatch, version, {"torch": RuntimeError("broken"), "openvino": (26.0, 1.0)})


def test_the_real_ones_are_measured(version: Path, cache: Path) -> None:
    engine = load_engine(str(version), "auto", cache=str(cache), min_cosine=0.95)

    trials = {trial.engine: trial for trial in engine.report.trials}
    assert engine.name == engine.report.engine
    assert all(trial.images_per_second and trial.cosine for trial in trials.values()), trials
    fastest_exact = max(trials[name].images_per_second or 0 for name in ("torch", "openvino"))
    assert (trials[engine.name].images_per_second or 0) >= fastest_exact
    assert trials["openvino"].cosine == pytest.approx(1, abs=1e-6)
    assert engine.encode_image(random_squares(2, 32)).shape == (2, 16)


def test_without_pictures_only_exact_engines_are_considered(version: Path, tmp_path: Path, cache: Path) -> None:
    folder = shutil.copytree(version, tmp_path / "old")
    (folder / CALIBRATION_FILE).unlink()

    report = load_engine(str(folder), "auto", cache=str(cache)).report

    assert report.engine in ("torch", "openvino")
    assert report.pictures == 0
    for trial in report.trials:
        assert (trial.refused == "") == (trial.engine in ("torch", "openvino"))
        assert trial.refused == "" or "no calibration.npz to compare it on, so only exact engines" in trial.refused


def test_without_openvino_torch_serves_and_the_report_says_so(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tinyclip_workers.engines.openvino_engine", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)

    report = load_engine(str(version), "auto", min_cosine=1.0).report

    assert report.engine == "torch"
    assert "pip install 'tinyclip[openvino]'" in report.reason


def writing(data: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model").write_bytes(data)

    return write


class TestCache:
    def count(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        made: list[str] = []
        real = engine_builder.get_or_create

        def counting(root: Path, key: dict[str, object], make: Any) -> Path:
            def noted(folder: Path) -> None:
                made.append(str(key["made"]))
                make(folder)

            return real(root, key, noted)

        monkeypatch.setattr(engine_builder, "get_or_create", counting)
        return made

    def test_where_it_lies(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(ENGINE_CACHE, raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert default_folder() == tmp_path / "tinyclip/engines"

        monkeypatch.setenv(ENGINE_CACHE, str(tmp_path / "told"))
        assert default_folder() == tmp_path / "told"

    def test_a_restart_converts_nothing(self, version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = self.count(monkeypatch)

        first = load_engine(str(version), "openvino-int8", cache=str(tmp_path))
        again = load_engine(str(version), "openvino-int8", cache=str(tmp_path))

        assert made == ["towers", "int8"]
        np.testing.assert_array_equal(first.encode_image(random_squares(4, 32)), again.encode_image(random_squares(4, 32)))

    def test_other_pictures_are_another_model(self, version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = self.count(monkeypatch)
        other = shutil.copytree(version, tmp_path / "other")
        (other / CALIBRATION_FILE).write_bytes(encode_calibration(random_squares(40, 32)[8:]))

        for folder in (version, other):
            load_engine(str(folder), "openvino-int8", cache=str(tmp_path / "cache"))

        assert made == ["towers", "int8", "int8"]

    @pytest.mark.parametrize("harm", ["cut", "gone", "no manifest", "other bytes", "empty manifest"])
    def test_a_torn_entry_is_made_again(self, tmp_path: Path, harm: str) -> None:
        entry = get_or_create(tmp_path, {"a": 1}, writing(b"whole"))
        if harm == "gone":
            (entry / "model").unlink()
        elif harm == "no manifest":
            (entry / MANIFEST).unlink()
        elif harm == "empty manifest":
            (entry / MANIFEST).write_text("")
        else:
            (entry / "model").write_bytes(b"wh" if harm == "cut" else b"WHOLE")

        again = get_or_create(tmp_path, {"a": 1}, writing(b"anew"))

        assert again == entry
        assert (again / "model").read_bytes() == b"anew"

    def test_a_conversion_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        def fail(folder: Path) -> None:
            (folder / "model").write_bytes(b"half")
            raise RuntimeError("out of memory")

        with pytest.raises(RuntimeError, match="out of memory"):
            get_or_create(tmp_path, {"a": 1}, fail)

        assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
        assert get_or_create(tmp_path, {"a": 1}, writing(b"x")).is_dir()

    def test_the_oldest_are_forgotten(self, tmp_path: Path) -> None:
        for number in range(MAX_ENTRIES + 3):
            get_or_create(tmp_path, {"a": number}, writing(b"x"))

        assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == MAX_ENTRIES

    def test_a_folder_that_cannot_be_written_costs_only_time(self, version: Path, tmp_path: Path) -> None:
        blocked = tmp_path / "file"
        blocked.write_text("")

        engine = load_engine(str(version), "openvino", cache=str(blocked))

        assert engine.encode_image(random_squares(1, 32)).shape == (1, 16)
