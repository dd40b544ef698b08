"""Fixtures of the engine's tests: a tiny student with its engine, and one cache of converted models."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tinyclip_workers.engines.cache import ENGINE_CACHE
from tinyclip_workers.engines.load import load_engine
from tinyclip_workers.engines.protocol import Engine

from tests.workers.students import write_student


@pytest.fixture(scope="session", autouse=True)
def engine_cache(isolated_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of converted models that all tests share, also those of other pytest-xdist workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen-") else base) / "engines"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENGINE_CACHE, str(folder))
        yield folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a student's version; tests only read them."""
    return write_student(tmp_path_factory.mktemp("models") / "student" / "1")


@pytest.fixture(scope="session")
def engine(folder: Path) -> Engine:
    return load_engine(str(folder))
