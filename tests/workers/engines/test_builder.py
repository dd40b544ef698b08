"""Building engines: conversions are cached by model and calibration images."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinyclip_workers.engines import builder as engine_builder
from tinyclip_workers.engines import openvino_engine
from tinyclip_workers.engines.builder import EngineBuilder
from tinyclip_workers.engines.calibration import CALIBRATION_FILE, encode_calibration
from tinyclip_workers.engines.load import load_engine
from tinyclip_workers.model.files.folders import load_folder

from tests.workers.served_students import random_squares


@pytest.fixture(autouse=True)
def quick_conversion(vit_version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take converted towers from the cache that all tests share."""
    towers = EngineBuilder(load_folder(str(vit_version)), None).converted_towers()
    for name in ("image", "text"):
        model = openvino_engine.read_model(towers / f"{name}.xml")
        monkeypatch.setattr(openvino_engine, f"convert_{name}_tower", lambda loaded, model=model: model)


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The conversions that were not in the cache."""
    made: list[str] = []
    get_or_create = engine_builder.get_or_create

    def recording(root: Path, key: dict[str, object], create: Any) -> Path:
        def recorded(folder: Path) -> None:
            made.append(str(key["made"]))
            create(folder)

        return get_or_create(root, key, recorded)

    monkeypatch.setattr(engine_builder, "get_or_create", recording)
    return made


def test_a_restart_and_another_calibration_convert_only_what_changed(
    vit_version: Path, tmp_path: Path, conversions: list[str]
) -> None:
    cache, other = str(tmp_path / "cache"), shutil.copytree(vit_version, tmp_path / "other")
    (other / CALIBRATION_FILE).write_bytes(encode_calibration(random_squares(40, 32)[8:]))

    first = load_engine(str(vit_version), "openvino-int8", cache=cache)
    assert conversions == ["towers", "int8"]
    again = load_engine(str(vit_version), "openvino-int8", cache=cache)
    assert conversions == ["towers", "int8"]
    load_engine(str(other), "openvino-int8", cache=cache)

    assert conversions == ["towers", "int8", "int8"]
    images = random_squares(4, 32)
    np.testing.assert_array_equal(first.encode_image(images), again.encode_image(images))


def test_without_a_writable_cache_every_start_converts(vit_version: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")

    engine = load_engine(str(vit_version), "openvino", cache=str(blocked))

    assert engine.encode_image(random_squares(1, 32)).shape == (1, 16)
