"""Reading untrusted tar streams: malicious ones, damaged ones, and unusual valid ones."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tinyclip_workers.data import tar_files
from tinyclip_workers.data.shards import BROKEN_SHARD, Skipped, read_shard, read_shards
from tinyclip_workers.data.tar_files import read_members

CONTENT = {"a.txt": b"one", "b/c.txt": b"two" * 5000, "./d.txt": b""}


def tar(files: dict[str, bytes], *special: tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info in special:
            archive.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_plain_and_compressed_tars_give_the_same_files(pack: Callable[[bytes], bytes]) -> None:
    assert dict(read_members(io.BytesIO(pack(tar(CONTENT))))) == CONTENT


def test_a_plain_tar_whose_first_name_looks_like_a_compression_header_is_read() -> None:
    assert dict(read_members(io.BytesIO(tar({"BZh1.txt": b"x"})))) == {"BZh1.txt": b"x"}


def test_links_devices_and_folders_are_skipped() -> None:
    special = [
        link("passwd.txt", tarfile.SYMTYPE, "/etc/passwd"), link("hard.txt", tarfile.LNKTYPE, "/etc/passwd"),
        link("folder.txt", tarfile.DIRTYPE, ""), link("device.txt", tarfile.CHRTYPE, ""), link("pipe.txt", tarfile.FIFOTYPE, ""),
    ]

    assert dict(read_members(io.BytesIO(tar(CONTENT, *special)))) == CONTENT


@pytest.mark.parametrize("name", ["/etc/cron.txt", "../up.txt", "a/../../up.txt", "a/..", "..\\up.txt"])
def test_a_name_outside_the_folder_makes_the_shard_a_broken_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.tar").write_bytes(tar({"good.txt": b"fine", name: b"evil"}))
    (tmp_path / "good.tar").write_bytes(tar({"other.txt": b"fine"}))
    skipped = Skipped()

    samples = list(read_shards([str(tmp_path / "bad.tar"), str(tmp_path / "good.tar")], skipped))

    assert not [sample for sample in samples if b"evil" in sample.values()]
    assert samples[-1]["__key__"] == "other"
    assert skipped.shards == 1
    assert "is not a path inside a folder" in skipped.examples[0]


def test_a_decompression_bomb_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_files, "ALWAYS_ALLOWED_BYTES", 1 << 20)
    bomb = gzip.compress(tar({f"{i}.txt": bytes(1 << 19) for i in range(40)}))
    assert len(bomb) < 40_000
    read: list[int] = []

    with pytest.raises(tarfile.ReadError, match="more than 100 times its size"):
        read.extend(len(data) for _, data in read_members(io.BytesIO(bomb)))

    assert sum(read) < 6 << 20


def test_a_file_beyond_the_size_limit_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tar_files, "MAX_MEMBER_BYTES", 1000)
    (tmp_path / "a.tar").write_bytes(tar({"small.txt": b"x" * 1000, "huge.txt": b"x" * 1001}))

    with pytest.raises(tarfile.ReadError, match=r"huge\.txt in it has 1,001 bytes"):
        list(read_shard(str(tmp_path / "a.tar")))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no tar at all" * 100, id="another format"),
        pytest.param(tar(CONTENT)[:9000], id="cut off"),
        pytest.param(gzip.compress(tar(CONTENT))[:60], id="gzip, cut off early"),
        pytest.param(gzip.compress(tar(CONTENT))[:-9], id="gzip, cut off late"),
        pytest.param(b"\x1f\x8b\x08" + b"\0" * 100, id="gzip, damaged"),
        pytest.param(lzma.compress(tar(CONTENT))[:-40], id="xz, cut off"),
        pytest.param(bz2.compress(tar(CONTENT))[:-40], id="bzip2, cut off"),
    ],
)
def test_a_damaged_tar_raises_only_the_exceptions_of_a_broken_shard(data: bytes) -> None:
    with pytest.raises(BROKEN_SHARD):
        list(read_members(io.BytesIO(data)))
