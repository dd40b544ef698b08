"""A tiny student and its engine, for the tests that serve or index one."""

from pathlib import Path

import pytest
from tinyclip_workers.engines.load import load_engine
from tinyclip_workers.engines.protocol import Engine

from tests.workers.students import write_student


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a student's version; tests only read them."""
    return write_student(tmp_path_factory.mktemp("models") / "student" / "1")


@pytest.fixture(scope="session")
def engine(folder: Path) -> Engine:
    return load_engine(str(folder))
