"""Reading untrusted tar streams: malicious ones, damaged ones, and unusual valid ones."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tinyclip_workers.data import shards, tar_files, tar_streams
from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.shards import BROKEN_SHARD, read_shard, read_shards
from tinyclip_workers.data.tar_files import Member, Unread, read_members

from tests.workers import hostile_files as hostile

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


def contents(members: Iterator[Member]) -> dict[str, bytes | Unread]:
    return {member.name: member.content for member in members}


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_plain_and_compressed_tars_give_the_same_files(pack: Callable[[bytes], bytes]) -> None:
    assert contents(read_members(io.BytesIO(pack(tar(CONTENT))))) == CONTENT


def test_a_plain_tar_whose_first_name_looks_like_a_compression_header_is_read() -> None:
    assert contents(read_members(io.BytesIO(tar({"BZh1.txt": b"x"})))) == {"BZh1.txt": b"x"}


def test_links_devices_and_folders_are_skipped() -> None:
    special = [
        link("passwd.txt", tarfile.SYMTYPE, "/etc/passwd"), link("hard.txt", tarfile.LNKTYPE, "/etc/passwd"),
        link("folder.txt", tarfile.DIRTYPE, ""), link("device.txt", tarfile.CHRTYPE, ""), link("pipe.txt", tarfile.FIFOTYPE, ""),
    ]

    assert contents(read_members(io.BytesIO(tar(CONTENT, *special)))) == CONTENT


@pytest.mark.parametrize("name", ["/etc/cron.txt", "../up.txt", "a/../../up.txt", "a/../.txt", "..\\up.txt"])
def test_a_file_with_a_name_outside_the_folder_is_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.tar").write_bytes(tar({"good.txt": b"fine", name: b"evil", "other.txt": b"fine"}))
    skipped = Skipped()

    samples = list(read_shards([str(tmp_path / "bad.tar")], skipped))

    assert [sample.get("txt") for sample in samples] == [b"fine", None, b"fine"]
    assert list(samples[1]["__defects__"].values()) == ["its name is not a path inside a folder"]
    assert skipped.shards == 0


def test_a_decompression_bomb_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_streams, "ALWAYS_ALLOWED_BYTES", 1 << 20)
    bomb = gzip.compress(tar({f"{i}.txt": bytes(1 << 19) for i in range(40)}))
    assert len(bomb) < 40_000
    read: list[int] = []

    with pytest.raises(tarfile.ReadError, match="more than 100 times its size"):
        read.extend(len(data) for _, data, *_ in read_members(io.BytesIO(bomb)))

    assert sum(read) < 6 << 20


def test_a_file_beyond_the_size_limit_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tar_files, "MAX_MEMBER_BYTES", 1000)
    files = {"small.txt": b"x" * 1000, "huge.txt": b"x" * 1001, "next.txt": b"x"}

    found = contents(read_members(io.BytesIO(tar(files))))

    assert found == {**files, "huge.txt": Unread("it has 1,001 bytes, at most 1,000 are read")}


FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
NAMES = ["a.txt", "b/" * 60 + "c.txt", "ü/漢字.txt", "long" * 30 + ".txt", "x" * 300 + ".txt"]


@pytest.mark.parametrize("format", FORMATS)
def test_names_of_all_formats_are_read(format: str) -> None:
    file, files = io.BytesIO(), {name: name.encode() * 3 for name in NAMES[: 3 if format == "ustar" else None]}
    with tarfile.open(fileobj=file, mode="w", format=FORMATS[format], pax_headers={"comment": "x"}) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

    assert contents(read_members(io.BytesIO(file.getvalue()))) == files


A, B = hostile.member("a.txt", b"one"), hostile.member("b.txt", b"two")
DAMAGED = b"x" + hostile.header("bad.txt", 3)[1:]

BAD_MEMBERS = {
    "checksum": DAMAGED + hostile.padded(b"bad"),
    "negative size": hostile.header("bad.txt", -3) + hostile.padded(b"bad"),
    "negative PAX size": hostile.pax({"size": "-3"}) + hostile.member("bad.txt", b"bad"),
    "PAX size of many digits": hostile.pax({"size": "9" * 5000}) + hostile.member("bad.txt", b"bad"),
    "damaged PAX header": hostile.header("pax", 6, tarfile.XHDTYPE) + hostile.padded(b"99 a=b")
    + hostile.member("bad.txt", b"bad"),
    "PAX header without records": hostile.header("pax", 6, tarfile.XHDTYPE) + hostile.padded(b"9z a=b")
    + hostile.member("bad.txt", b"bad"),
    "large PAX header": hostile.pax({"comment": "x" * 2_000_000}) + hostile.member("bad.txt", b"bad"),
    "chain of PAX headers": hostile.pax({"comment": "x"}) * 3000 + hostile.pax({"size": "x"}) + hostile.member("bad.txt", b"bad"),
    "sparse file of GNU tar": hostile.sparse("bad.txt", packed=3, size=1 << 30) + hostile.padded(b"bad"),
    "sparse file with a long map": hostile.sparse("bad.txt", packed=3, size=9, extended=True)
    + (bytes(504) + b"\1" + bytes(7)) * 3 + bytes(512) + hostile.padded(b"bad"),
    "sparse file in PAX": hostile.pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "bad.txt"})
    + hostile.member("GNUSparseFile.1/x", b"999999999999\n"),
    "long name": hostile.pax({"path": "x" * 5000 + ".txt"}) + hostile.member("bad.txt", b"bad"),
    "twice": hostile.member("bad.txt", b"one") + hostile.member("bad.txt", b"two"),
}  # fmt: skip


@pytest.mark.parametrize("bad", list(BAD_MEMBERS.values()), ids=list(BAD_MEMBERS))
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_bad_member_costs_only_its_sample(tmp_path: Path, bad: bytes, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "a.tar").write_bytes(pack(A + bad + B + hostile.END))

    first, broken, last = read_shard(str(tmp_path / "a.tar"))

    assert (first["txt"], last["txt"]) == (b"one", b"two")
    assert broken["__defects__"]
    assert "txt" not in broken


@pytest.mark.parametrize("tail", [hostile.header("b.png", 1 << 63), hostile.sparse("b.png", packed=1 << 63, size=1)])
def test_a_size_beyond_the_end_makes_the_rest_of_a_shard_a_broken_one(tmp_path: Path, tail: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(A + B + tail)
    skipped = Skipped()

    samples = list(read_shards([str(tmp_path / "a.tar")], skipped))

    assert [sample["txt"] for sample in samples] == [b"one"]
    assert skipped.shards == 1


def test_files_of_one_sample_are_limited_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shards, "MAX_SAMPLE_BYTES", 1000)
    monkeypatch.setattr(shards, "MAX_SAMPLE_FILES", 5)
    (tmp_path / "a.tar").write_bytes(tar({f"a.{n}": bytes(300) for n in range(9)}))
    (tmp_path / "b.tar").write_bytes(tar({f"a.{n}": b"" for n in range(9)}))

    [large], [many] = list(read_shard(str(tmp_path / "a.tar"))), list(read_shard(str(tmp_path / "b.tar")))

    assert large["__defects__"]["3"] == "its files exceed 1,000 bytes"
    assert many["__defects__"][""] == "it has more than 5 files"


def test_names_of_a_sample_cannot_replace_its_entries(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar({"a.__key__": b"x", "a.__url__": b"x", "a.__bad__": b"x", "a.txt": b"one"}))

    [sample] = read_shard(str(tmp_path / "a.tar"))

    assert (sample["__key__"], sample["txt"], "__bad__" in sample) == ("a", b"one", False)


@pytest.mark.parametrize("entry", ["__key__", "__url__", "__defects__"])
def test_names_of_unreadable_files_cannot_remove_entries_of_a_sample(tmp_path: Path, entry: str) -> None:
    unreadable = hostile.sparse(f"a.{entry}", packed=0, size=1)
    (tmp_path / "a.tar").write_bytes(A + unreadable + B + hostile.END)

    first, last = read_shards([str(tmp_path / "a.tar")], Skipped())

    assert (first["__key__"], first["txt"], first["__defects__"]) == ("a", b"one", {})
    assert (first["__url__"], last["__key__"]) == (str(tmp_path / "a.tar"), "b")


def test_xz_with_a_large_dictionary_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = lzma.compress(tar(CONTENT), preset=9)
    assert contents(read_members(io.BytesIO(packed))) == CONTENT

    monkeypatch.setattr(tar_streams, "XZ_MEMORY", 32 << 20)

    with pytest.raises(tarfile.ReadError, match="Memory usage limit"):
        list(read_members(io.BytesIO(packed)))


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


class TestPlainHeaders:
    @pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    @pytest.mark.parametrize("name", ["a.txt", "b/c.txt", "ü.txt", "x" * 100, "folder/" * 20 + "y.txt", "ends/"])
    @pytest.mark.parametrize("size", [0, 7, 8**9])
    def test_they_are_decoded_as_by_tarfile_or_left_to_it(self, format: int, name: str, size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size = size
        blocks = info.tobuf(format, "utf-8", "surrogateescape")
        header = blocks[-512:]

        found, expected = tar_files._plain_header(header), tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")

        assert (found is None) == (name == "ends/" or header[345] != 0)
        if found is not None:
            assert (found.name, found.size, found.isreg()) == (expected.name, expected.size, True)

    @pytest.mark.parametrize("at", [0, 100, 124, 130, 150, 156, 257, 511])
    def test_a_changed_header_is_left_to_tarfile(self, at: int) -> None:
        header = bytearray(tar({"a.txt": b"one"})[:512])
        assert tar_files._plain_header(bytes(header)) is not None

        header[at] ^= 1

        assert tar_files._plain_header(bytes(header)) is None

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
    def test_other_kinds_are_left_to_tarfile(self, kind: bytes) -> None:
        assert tar_files._plain_header(tar({}, link("a", kind, "b"))[:512]) is None
