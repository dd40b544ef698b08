"""Fixtures of the engine's tests: a tiny student with its engine, one cache of converted models, and the reference's arrays."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tinyclip_workers.engines.cache import ENGINE_CACHE
from tinyclip_workers.engines.load import load_engine
from tinyclip_workers.engines.protocol import Engine
from torch import Tensor

from tests.workers.parity import Arrays, Near, assert_near
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


@pytest.fixture
def near(subtests: pytest.Subtests) -> Near:
    """Compare values with the reference's arrays."""

    def compare(ours: Tensor | float, arrays: Arrays, name: str, tolerance: float, *, flat: bool = False) -> None:
        if name in arrays:
            assert_near(ours, arrays[name].flatten() if flat else arrays[name], tolerance, name)
        else:
            with subtests.test(arrays.missing(name)):
                pytest.skip(arrays.missing(name))

    return compare
