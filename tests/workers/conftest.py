"""A tiny student and its engine, for the tests of what serves and indexes one."""

from pathlib import Path

import pytest
from tinyclip_workers.engines.load import load_engine
from tinyclip_workers.engines.protocol import Engine

from tests.workers.students import write_student


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a student's version."""
    return write_student(tmp_path_factory.mktemp("models") / "student" / "1")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return load_engine(str(folder))
