"""The cache of converted models: intact entries are reused, others are created again."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tinyclip_workers.engines.cache import ENGINE_CACHE, MANIFEST, MAX_ENTRIES, default_folder, get_or_create


def writer(data: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model").write_bytes(data)

    return write


def test_the_folder_is_configured_or_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENGINE_CACHE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "tinyclip/engines"

    monkeypatch.setenv(ENGINE_CACHE, str(tmp_path / "configured"))
    assert default_folder() == tmp_path / "configured"


@pytest.mark.parametrize("damage", ["truncated", "missing", "no manifest", "other bytes", "empty manifest"])
def test_a_damaged_entry_is_created_again(tmp_path: Path, damage: str) -> None:
    entry = get_or_create(tmp_path, {"a": 1}, writer(b"whole"))
    if damage == "missing":
        (entry / "model").unlink()
    elif damage == "no manifest":
        (entry / MANIFEST).unlink()
    elif damage == "empty manifest":
        (entry / MANIFEST).write_text("")
    else:
        (entry / "model").write_bytes(b"wh" if damage == "truncated" else b"WHOLE")

    again = get_or_create(tmp_path, {"a": 1}, writer(b"new"))

    assert again == entry
    assert (again / "model").read_bytes() == b"new"


def test_a_failed_conversion_leaves_no_entry(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "model").write_bytes(b"half")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        get_or_create(tmp_path, {"a": 1}, fail)

    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    assert get_or_create(tmp_path, {"a": 1}, writer(b"x")).is_dir()


def test_the_oldest_entries_are_deleted(tmp_path: Path) -> None:
    for number in range(MAX_ENTRIES + 3):
        get_or_create(tmp_path, {"a": number}, writer(b"x"))

    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == MAX_ENTRIES
