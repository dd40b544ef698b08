import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tinyclip.artifacts import disk
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

    def test_a_copied_file_that_does_not_fit_leaves_the_old_one(self, tmp_path: Path) -> None:
        store = ArtifactsStore(f"{tmp_path}/store")
        (tmp_path / "source").write_bytes(bytes(10_000))
        store.write_bytes("a/b", b"old")

        with pytest.raises(OSError, match=r"/store/a/b'$"), little_room():
            store.put_file(tmp_path / "source", "a/b")

        assert store.list("a") == ["b"]
        assert store.read_bytes("a/b") == b"old"

    def test_a_copy_replaces_in_one_step(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = ArtifactsStore(str(tmp_path))
        store.write_bytes("a", b"new")
        store.write_bytes("b", b"old")
        with monkeypatch.context() as killed:
            killed.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                store.copy("a", "b")
        assert store.read_bytes("b") == b"old"

        store.copy("a", "b")
        store.copy("a", "b")

        assert store.read_bytes("b") == b"new"
        assert store.list("") == ["a", "b"]


class TestPowerFailure:
    """A name that an acknowledged call has given is flushed to the disk: its folder, and the folders of new folders."""

    @pytest.mark.parametrize("method", ["write_bytes", "create_bytes", "put_file", "copy"])
    def test_names_are_flushed_after_they_are_given(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
        store = ArtifactsStore(f"{tmp_path}/store")
        store.write_bytes("source", b"1")
        sources = {"put_file": (Path(f"{tmp_path}/store/source"), "new/folder/file"), "copy": ("source", "new/folder/file")}
        steps = recorded_steps(monkeypatch, tmp_path / "store")

        getattr(store, method)(*sources.get(method, ("new/folder/file", b"1")))

        assert store.read_bytes("new/folder/file") == b"1"
        assert steps[:2] == ["fsync .", "fsync new"]
        content = [] if method == "copy" else ["fsync new/folder/file.tmp"]
        name = "link" if method == "create_bytes" else "replace"
        assert [step for step in steps[2:] if step != "link new/folder/file.tmp"] == [
            *content, f"{name} new/folder/file", "fsync new/folder",
        ]  # fmt: skip


def recorded_steps(monkeypatch: pytest.MonkeyPatch, root: Path) -> list[str]:
    """Record the names that are given and what is flushed below a folder, in order."""
    steps: list[str] = []

    def relative(path: object) -> str:
        name = os.path.relpath(str(path), root)
        return re.sub(r"\.[0-9a-f]{32}\.tmp$", ".tmp", name)

    fsync, replace, link = os.fsync, os.replace, os.link
    monkeypatch.setattr(
        os, "fsync", lambda file: (steps.append(f"fsync {relative(os.readlink(f'/proc/self/fd/{file}'))}"), fsync(file))
    )
    monkeypatch.setattr(os, "replace", lambda old, new: (steps.append(f"replace {relative(new)}"), replace(old, new)))
    monkeypatch.setattr(os, "link", lambda old, new: (steps.append(f"link {relative(new)}"), link(old, new)))
    return steps


class TestCreate:
    def test_a_writer_recognises_its_own_file(self, store: ArtifactsStore) -> None:
        assert store.create_bytes("a/b", b"mine, with a nonce")

        assert store.create_bytes("a/b", b"mine, with a nonce")

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


def test_what_another_process_removes_at_the_same_time_is_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "jobs" / "one"
    folder.mkdir(parents=True)
    for number in range(20):
        (folder / str(number)).write_text("a")

    def remove_one_more() -> None:
        for path in sorted(folder.glob("*"))[:1]:
            path.unlink()

    disk.remove_tree(tmp_path / "jobs", check=remove_one_more)

    assert not (tmp_path / "jobs").exists()
