"""Files that users name: only regular ones are opened, and no server can fill the memory or hold the reader."""

import gzip
import http.server
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import pytest
from tinyclip.addresses import ALLOW_PRIVATE, SERVICE_PLACES
from tinyclip_workers.runtime import http_limits, user_files
from tinyclip_workers.runtime.addresses import AddressRefused
from tinyclip_workers.runtime.user_files import RangeReader, UnreadableFile, open_file, read_file

from tests.workers import hostile_files as hostile


@pytest.fixture(autouse=True)
def _local_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW_PRIVATE, "1")


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket"))
    kinds = {
        "/dev/zero": "a device", f"{tmp_path}/pipe": "a pipe", f"{tmp_path}/link": "a pipe", f"file://{tmp_path}": "a folder",
        f"{tmp_path}/socket": "a socket",
    }  # fmt: skip

    for address, kind in kinds.items():
        with pytest.raises(UnreadableFile, match=f"is {kind}; name a regular file"):
            open_file(address)
    with pytest.raises(FileNotFoundError):
        open_file(str(tmp_path / "missing"))


def test_a_link_that_is_replaced_after_the_check_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service/tokens.json").write_text("secret")
    (tmp_path / "data.txt").write_text("data")
    link = tmp_path / "link"
    link.symlink_to("data.txt")
    monkeypatch.setenv(SERVICE_PLACES, json.dumps([f"{tmp_path}/service"]))
    assert read_file(str(link), 100) == b"data"
    expect_regular = user_files._expect_regular

    def replace_link(address: str, mode: int) -> None:
        expect_regular(address, mode)
        link.unlink()
        link.symlink_to("service/tokens.json")

    monkeypatch.setattr(user_files, "_expect_regular", replace_link)

    with pytest.raises(AddressRefused, match="belongs to the service itself"):
        read_file(str(link), 100)


def test_a_file_up_to_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")

    assert read_file(str(tmp_path / "a"), 5) == b"12345"
    with pytest.raises(UnreadableFile, match="more than the 4 bytes that are read"):
        read_file(f"file://{tmp_path}/a", 4)


def test_an_endless_response_is_read_up_to_the_limit() -> None:
    with hostile.server(hostile.endless) as address, pytest.raises(UnreadableFile, match="more than the 100,000 bytes"):
        read_file(f"{address}/a.txt", 100_000)


def test_a_response_that_exceeds_the_requested_range_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "MAX_RESPONSE_BYTES", 1 << 20)

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        if "Range" in request.headers:
            hostile.endless(request)
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()

    with hostile.server(answer) as address, pytest.raises(UnreadableFile, match="more than 1,048,576 bytes for one"):
        read_file(f"{address}/a.txt", 1000)


def test_a_compressed_response_is_unpacked_in_pieces_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "MAX_RESPONSE_BYTES", 1 << 20)
    packed, pieces = gzip.compress(bytes(64 << 20)), []
    iter_any = aiohttp.StreamReader.iter_any

    async def recorded(reader: aiohttp.StreamReader) -> AsyncIterator[bytes]:
        async for piece in iter_any(reader):
            pieces.append(len(piece))
            yield piece

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if "Range" in request.headers:
            request.send_header("Content-Encoding", "gzip")
        request.send_header("Content-Length", str(len(packed)))
        request.end_headers()
        request.wfile.write(packed if "Range" in request.headers else b"")

    monkeypatch.setattr(aiohttp.StreamReader, "iter_any", recorded)
    with hostile.server(answer) as address, pytest.raises(UnreadableFile, match="more than 1,048,576 bytes for one"):
        read_file(f"{address}/a.txt", 1000)

    assert 0 < max(pieces) < 4 << 20


def test_a_slow_response_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_files, "SMALL_FILE_SECONDS", 0.3)

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(b"x")
            time.sleep(0.05)

    started = time.monotonic()
    with hostile.server(answer) as address, pytest.raises(UnreadableFile, match="is too slow"):
        read_file(f"{address}/a.txt", 1000)

    assert time.monotonic() - started < 5


@pytest.mark.parametrize("status", [403, 500, 503])
def test_errors_of_a_server_are_errors_of_the_file(status: int) -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        if "Range" in request.headers:
            request.send_error(status)
            return
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()

    with hostile.server(answer) as address, pytest.raises(OSError, match=str(status)):
        read_file(f"{address}/a.txt", 1000)


class TestRangeReader:
    @pytest.fixture
    def opened(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The addresses of files that were opened."""
        opened, open_local = [], user_files._open_local
        monkeypatch.setattr(user_files, "_open_local", lambda address, path: opened.append(address) or open_local(address, path))
        return opened

    def test_it_keeps_the_files_open_that_were_read_last(self, tmp_path: Path, opened: list[str]) -> None:
        addresses = [str(tmp_path / name) for name in "abc"]
        for address in addresses:
            Path(address).write_text(address[-1] + "0123456789")
        reader = RangeReader(most_open=2)

        parts = [reader.read(addresses[number], 3, 4) for number in (0, 1, 0, 2, 0, 1)]
        reader.close()

        assert parts == [b"2345"] * 6
        assert [address[-1] for address in opened] == ["a", "b", "c", "b"]

    def test_threads_read_one_file_at_a_time_each(self, tmp_path: Path) -> None:
        address = str(tmp_path / "file")
        Path(address).write_bytes(bytes(range(256)) * 100)
        reader = RangeReader(most_open=2)

        with ThreadPoolExecutor(8) as threads:
            parts = list(threads.map(lambda start: reader.read(address, start, 256), range(0, 20_000, 7)))
        reader.close()

        assert all(part[0] == start % 256 for part, start in zip(parts, range(0, 20_000, 7), strict=True))

    def test_a_file_that_ends_early_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("0123456789")
        reader = RangeReader(most_open=2)

        with pytest.raises(EOFError, match=r"file has 3 bytes from 7 on, not 4"):
            reader.read(str(tmp_path / "file"), 7, 4)
        reader.close()

    def test_only_regular_files_are_read(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")

        with pytest.raises(UnreadableFile, match="is a pipe; name a regular file"):
            RangeReader(most_open=2).read(f"{tmp_path}/pipe", 0, 1)
