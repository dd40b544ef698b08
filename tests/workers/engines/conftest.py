"""A version of a ViT student with calibration images."""

from pathlib import Path

import pytest
from tinyclip_workers.engines.calibration import CALIBRATION_FILE, encode_calibration

from tests.workers.served_students import random_squares, write_kind


@pytest.fixture(scope="session")
def vit_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_kind(tmp_path_factory.mktemp("student"), "vit")
    (folder / CALIBRATION_FILE).write_bytes(encode_calibration(random_squares(32, 32)))
    return folder
