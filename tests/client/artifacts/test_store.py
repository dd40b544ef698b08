import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tinyclip.artifacts.store import ArtifactsStore


@pytest.fixture(params=["local", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactsStore:
    return ArtifactsStore(str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}")


@contextmanager
def little_room() -> Iterator[None]:
    """Let no file of this process grow beyond a page: as on a full disk, `write` fails and names no file.

    Around nothing but the writing: what pytest prints may go to a file too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestWrite:
    def test_a_full_disk_is_reported_with_the_path_and_the_old_file_stays(self, tmp_path: Path) -> None:
        store = ArtifactsStore(str(tmp_path))
        store.write_bytes("jobs/x/model", b"old")

        with pytest.raises(OSError, match=f"'{tmp_path}/jobs/x/model'$"), little_room():
            store.write_bytes("jobs/x/model", bytes(10_000))

        assert store.list("jobs/x") == ["model"]
        assert store.read_bytes("jobs/x/model") == b"old"

    def test_a_new_file_that_does_not_fit_leaves_nothing(self, tmp_path: Path) -> None:
        store = ArtifactsStore(str(tmp_path))

        with pytest.raises(OSError, match=f"'{tmp_path}/jobs/x/control.json'$"), little_room():
            store.create_bytes("jobs/x/control.json", bytes(10_000))

        assert store.list("jobs/x") == []


class TestCreate:
    def test_only_the_first_writer_succeeds(self, store: ArtifactsStore) -> None:
        assert store.create_bytes("a/b", b"first")
        assert not store.create_bytes("a/b", b"second")

        assert store.read_bytes("a/b") == b"first"
        assert store.list("a") == ["b"]


class TestRead:
    def test_a_missing_file(self, store: ArtifactsStore) -> None:
        assert store.read_if_exists("a/b") is None
        for read in (lambda: store.read_bytes("a/b"), lambda: store.read_range("a/b", 0, 1)):
            with pytest.raises(FileNotFoundError):
                read()

    def test_a_range(self, store: ArtifactsStore) -> None:
        store.write_bytes("a/b", b"0123456789")

        assert store.read_range("a/b", 2, 5) == b"234"


class TestFolders:
    def test_are_listed_searched_and_removed(self, store: ArtifactsStore) -> None:
        for path in ("a/y", "a/x/deep", "b"):
            store.write_bytes(path, path.encode())

        assert store.list("a") == ["x", "y"]
        found = store.find("a")
        assert [(file.path, file.bytes) for file in found] == [("a/x/deep", 8), ("a/y", 3)]
        assert all(abs(datetime.now(UTC) - file.modified_at) < timedelta(minutes=5) for file in found)
        store.remove("a")
        assert (store.exists("a/y"), store.list("a"), store.find("a")) == (False, [], [])
        assert store.read_bytes("b") == b"b"

    def test_a_missing_one_is_empty(self, store: ArtifactsStore) -> None:
        store.remove("a")

        assert (store.list("a"), store.find("a")) == ([], [])
