"""Addresses that users may and may not name, with real connections on this machine."""

import json
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from huggingface_hub.constants import HF_HUB_CACHE
from tinyclip.addresses import ALLOW_PRIVATE, READABLE_ROOTS, address_problem
from tinyclip.hosts import is_private
from tinyclip.schemas.spec import TeacherSpec
from tinyclip_workers.data.shards import read_shard
from tinyclip_workers.importing.source_files import ImportRefused, read_source
from tinyclip_workers.model.files.errors import TeacherError
from tinyclip_workers.model.files.sources import find_teacher
from tinyclip_workers.plan.shards import inspect_shards
from tinyclip_workers.plan.specs import plan_or_errors
from tinyclip_workers.runtime import addresses
from tinyclip_workers.runtime.filesystems import open_filesystem, open_store

from tests.workers.shards import write_shard

PUBLIC = "93.184.216.34"
Resolve = Callable[..., list[Any]]


class Handler(BaseHTTPRequestHandler):
    """Serves one shard; /away redirects elsewhere."""

    shard = b""
    elsewhere = ""
    requested: list[str] = []

    def do_GET(self) -> None:
        self.requested.append(self.path)
        if self.path == "/away.tar":
            self.send_response(302)
            self.send_header("Location", self.elsewhere)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.shard)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.shard)

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


@pytest.fixture
def port(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server on 127.0.0.1 and 127.0.0.2, with fsspec's cached file systems dropped."""
    write_shard(tmp_path / "a.tar", [{"__key__": "one", "txt": "a cat"}])
    monkeypatch.setattr(Handler, "shard", (tmp_path / "a.tar").read_bytes())
    monkeypatch.setattr(Handler, "requested", [])
    fsspec.get_filesystem_class("http").clear_instance_cache()
    with ThreadingHTTPServer(("0.0.0.0", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()
    fsspec.get_filesystem_class("http").clear_instance_cache()


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
    """Resolve host names to these addresses in turn, then always to the last one."""
    left = list(answers)
    known = socket.getaddrinfo

    def resolve(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if not str(name).endswith(".example"):
            return known(host, port, *rest, **options)
        ip = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port or 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


class TestTextOfAddresses:
    @pytest.mark.parametrize(
        ("address", "why"),
        [
            ("http://127.0.0.1/a.tar", "private network"),
            ("http://localhost:8080/a.tar", "private network"),
            ("https://10.1.2.3/a.tar", "private network"),
            ("http://169.254.169.254/latest/meta-data", "private network"),
            ("http://[::1]/a.tar", "private network"),
            ("http://[::ffff:10.0.0.1]/a.tar", "private network"),
            ("http://[64:ff9b::7f00:1]/a.tar", "private network"),
            ("http://0.0.0.0/a.tar", "private network"),
            ("http:///a.tar", "names no host"),
            ("http://[/a.tar", "is not a URL"),
            ("http://[::1/a.tar", "is not a URL"),
            ("http://[::g]/a.tar", "is not a URL"),
            ("https://me:secret@example.org/a.tar", "user name or password"),
            ("ftp://example.org/a.tar", "has the scheme ftp"),
            ("pipe:cat /etc/passwd://x", "has the scheme pipe:cat"),
            ("ssh://example.org/a.tar", "has the scheme ssh"),
            ("zip://a.tar::http://example.org/a.zip", "chain of addresses"),
            ("simplecache::http://10.0.0.1/a", "chain of addresses"),
            ("s3://", "names no bucket; write s3://BUCKET/PATH"),
            ("s3:///", "names no bucket"),
            ("abfs://@account/a.tar", "names no bucket"),
            ("s3://bucket/../other/a.tar", "has .. in its path"),
            ("file:///data/../etc/passwd", "has .. in its path"),
        ],
    )
    def test_refused(self, address: str, why: str) -> None:
        assert why in str(address_problem(address, allow_private=False))
        with pytest.raises(addresses.AddressRefused, match=why):
            open_filesystem(address)

    @pytest.mark.parametrize(
        "address", ["/data/a.tar", "s3://bucket/{0..9}.tar", "https://example.org/a.tar", f"http://{PUBLIC}/a.tar", "file:///d/a.tar"]
    )
    def test_accepted(self, address: str) -> None:
        assert address_problem(address, allow_private=False) is None

    @pytest.mark.parametrize(
        "ip",
        [
            "127.1.2.3", "192.168.0.1", "172.16.0.1", "100.64.0.1", "fe80::1%eth0", "fd00::1", "fec0::1", "::", "224.0.0.1",
            "ff0e::1", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:80ff:fffe", "::127.0.0.1", "::ffff:127.0.0.1",
            "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "::ffff:224.0.0.1",
        ],
    )
    def test_private_addresses(self, ip: str) -> None:
        assert is_private(ip)

    @pytest.mark.parametrize("ip", [PUBLIC, "2606:4700:4700::1111", f"::ffff:{PUBLIC}", f"64:ff9b::{PUBLIC}", "2002:5db8:d822::"])
    def test_public_addresses(self, ip: str) -> None:
        assert not is_private(ip)


class TestConnections:
    def test_a_private_address_is_refused_until_a_setting_allows_it(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        url = f"http://127.0.0.1:{port}/a.tar"
        with pytest.raises(addresses.AddressRefused, match=f"set {ALLOW_PRIVATE}=1"):
            list(read_shard(url))
        assert Handler.requested == []

        monkeypatch.setenv(ALLOW_PRIVATE, "1")

        assert [sample["__key__"] for sample in read_shard(url)] == ["one"]

    def test_a_name_of_a_private_address(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        resolving(monkeypatch, "127.0.0.1")

        (problem,) = inspect_shards(f"http://inside.example:{port}/a.tar").problems

        assert "in a private network or on this machine" in problem[1]
        assert Handler.requested == []

    def test_a_name_that_changes_its_address_after_the_check(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        resolving(monkeypatch, PUBLIC, "127.0.0.1")

        with pytest.raises(OSError, match=r"a\.tar"):
            list(read_shard(f"http://rebinding.example:{port}/a.tar"))

        assert Handler.requested == []

    def test_a_redirect_to_a_private_address(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        resolving(monkeypatch, "127.0.0.1")
        monkeypatch.setattr(addresses, "is_private", lambda ip: ip != "127.0.0.1")  # as if that were a public one
        monkeypatch.setattr(Handler, "elsewhere", f"http://127.0.0.2:{port}/secret.tar")
        assert [sample["__key__"] for sample in read_shard(f"http://public.example:{port}/a.tar")] == ["one"]

        with pytest.raises(OSError, match=r"away\.tar"):
            list(read_shard(f"http://public.example:{port}/away.tar"))

        assert "/away.tar" in Handler.requested
        assert "/secret.tar" not in Handler.requested

    def test_every_http_file_system_of_the_process_is_guarded(self, port: int) -> None:
        with pytest.raises(OSError, match=r"a\.tar"):
            fsspec.open(f"http://127.0.0.1:{port}/a.tar", "rb").open()

        assert Handler.requested == []


def test_a_plan_reports_refused_addresses_by_field() -> None:
    metadata = "http://169.254.169.254/latest/meta-data"
    spec = {
        "name": "x", "teacher": {"model": "ViT-B-32", "pretrained": f"{metadata}.safetensors"},
        "data": {"train": {"shards": f"{metadata}/*.tar"}},
        "stages": [{"name": "s", "student": {"preset": "TinyCLIP-ViT-61M-32-Text-29M"}, "train": {"steps": 1}}],
    }

    errors = {error["pointer"]: error["message"] for error in plan_or_errors(spec)["errors"]}

    for pointer in ("/teacher/pretrained", "/data/train/shards"):
        assert "in a private network or on this machine" in errors[pointer]


class TestLocalPaths:
    @pytest.fixture
    def root(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder that may be read; the system's temporary folder is another one."""
        (tmp_path / "data").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
        monkeypatch.setenv(READABLE_ROOTS, json.dumps([str(tmp_path / "data")]))
        return tmp_path / "data"

    def test_the_files_that_a_pattern_matches_are_checked_when_they_are_opened(self, root: Path) -> None:
        write_shard(root / "00.tar", [{"__key__": "inside", "txt": "a cat"}])
        write_shard(root.parent / "secret.tar", [{"__key__": "outside", "txt": "a key"}])
        (root / "01.tar").symlink_to(root.parent / "secret.tar")

        inspection = inspect_shards(f"{root}/*.tar")

        [(shard, problem)] = inspection.problems
        assert (shard, "lies outside" in problem, str(root) in problem) == (f"{root}/01.tar", True, True)
        assert {sample["__key__"] for sample in inspection.samples} == {"inside"}

    def test_downloads_and_temporary_files_are_readable_by_the_engine_alone(self, root: Path) -> None:
        for path in (f"{HF_HUB_CACHE}/models--a--b/weights", f"{root.parent}/scratch/x"):
            addresses.expect_address(addresses.ServiceAddress(path))
            with pytest.raises(addresses.AddressRefused, match=r"lies outside .* TINYCLIP_DATA_ROOTS"):
                addresses.expect_address(path)

    def test_a_model_folder_whose_configuration_is_a_link_to_outside(self, root: Path) -> None:
        (root.parent / "secret.json").write_text('{"password": "12345"}')
        (root / "open_clip_config.json").symlink_to(root.parent / "secret.json")
        (root / "open_clip_model.safetensors").write_bytes(b"")

        with pytest.raises(TeacherError, match="lies outside"):
            find_teacher(TeacherSpec(model=f"local-dir:{root}"))

    def test_a_folder_to_import_with_a_link_to_outside(self, root: Path) -> None:
        (root.parent / "secret").write_text("12345")
        (root / "pytorch_model.bin").symlink_to(root.parent / "secret")

        with pytest.raises(ImportRefused, match="lies outside"):
            read_source(str(root), root / "scratch", upload_name=None, limit=1 << 20, pointer="/source")

    def test_without_the_setting_every_path_is_readable(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(addresses.AddressRefused, match="lies outside"):
            addresses.expect_address("/etc/passwd")

        monkeypatch.setenv(READABLE_ROOTS, "[]")
        addresses.expect_address("/etc/passwd")  # raises nothing now

    def test_a_store_outside_is_not_opened(self, root: Path) -> None:
        assert open_store(str(root)).list("") == []
        with pytest.raises(addresses.AddressRefused, match="lies outside"):
            open_store(str(root.parent))


def test_the_engine_opens_files_and_stores_through_the_check_only() -> None:
    unchecked = re.compile(r"\b(ArtifactsStore|url_to_fs|fsspec\.open\w*|get_fs_token_paths)\(")
    package = Path(addresses.__file__).parents[1]

    found = [path.name for path in package.rglob("*.py") if unchecked.search(path.read_text())]

    assert found == ["filesystems.py"]
