"""Downloads and imports of models."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import httpx
import pytest
import tinyclip
from tinyclip import Client, Retries

from tests.client.clients import Connect, CutOff, Recorder, client_of
from tests.client.documents import FILES, WEIGHTS, version

RETRIES = Retries(first_wait=0.0, attempts=3)
EXPORTS = {"exports/onnx/image.onnx": b"graph" * 100, "exports/onnx/more/a.bin": b"x", "exports/onnx-int8/image.onnx": b"small"}


class Registry:
    """Serves one version; the first responses with its weights may be cut off, and it may not support ranges."""

    def __init__(self, files: dict[str, bytes] = FILES, *, cuts: int = 0, ranges: bool = True) -> None:
        self.files = files
        self.listed = version(self.files)
        self.ranges_requested: list[str | None] = []
        self.bytes_sent = 0
        self._cuts = cuts
        self._ranges = ranges

    def handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/v1/models/shapes/versions/")
        if path in ("1", "latest", "best"):
            return httpx.Response(200, json=self.listed)
        name = path.removeprefix("1/files/")
        requested = request.headers.get("range")
        begin = int(requested.removeprefix("bytes=").rstrip("-")) if requested and self._ranges else 0
        if name == WEIGHTS:
            self.ranges_requested.append(requested)
        return httpx.Response(206 if begin else 200, stream=self._body(name, self.files[name][begin:]))

    def _body(self, name: str, content: bytes) -> httpx.SyncByteStream | httpx.AsyncByteStream:
        if name == WEIGHTS and self._cuts > 0:
            self._cuts -= 1
            self.bytes_sent += 1000
            return CutOff(content[:1000])
        self.bytes_sent += len(content)
        return httpx.ByteStream(content)

    def client(self) -> Client:
        return client_of(self.handle, RETRIES)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


class TestPull:
    @pytest.mark.parametrize("reference", ["shapes@1", "shapes@best", "shapes"])
    def test_a_version_is_downloaded_completely(self, connect: Connect, tmp_path: Path, reference: str) -> None:
        folder = connect(Registry().handle).models.pull(reference, tmp_path / "student")

        assert folder == tmp_path / "student"
        assert contents(folder) == FILES
        assert [entry.name for entry in tmp_path.iterdir()] == ["student"]

    def test_a_file_that_was_cut_off_is_continued(self, connect: Connect, tmp_path: Path) -> None:
        registry = Registry(cuts=2)

        connect(registry.handle, RETRIES).models.pull("shapes@1", tmp_path / "student")

        assert registry.ranges_requested == [None, "bytes=1000-", "bytes=2000-"]
        assert contents(tmp_path / "student") == FILES

    def test_a_server_without_ranges_sends_it_again(self, tmp_path: Path) -> None:
        Registry(cuts=1, ranges=False).client().models.pull("shapes@1", tmp_path / "student")

        assert contents(tmp_path / "student") == FILES

    def test_an_interrupted_pull_writes_nothing_to_dest_and_is_continued_by_the_next(self, tmp_path: Path) -> None:
        away = Registry(cuts=1)

        def handle(request: httpx.Request) -> httpx.Response:
            if away.ranges_requested:
                raise httpx.ConnectError("refused")
            return away.handle(request)

        with pytest.raises(tinyclip.CannotReachServer):
            client_of(handle, RETRIES).models.pull("shapes@1", tmp_path / "student")
        assert not (tmp_path / "student").exists()

        back = Registry()
        back.client().models.pull("shapes@1", tmp_path / "student")

        assert contents(tmp_path / "student") == FILES
        assert back.ranges_requested == ["bytes=1000-"]

    def test_pulling_again_downloads_nothing(self, tmp_path: Path) -> None:
        registry = Registry()
        registry.client().models.pull("shapes@1", tmp_path / "student")
        sent = registry.bytes_sent

        registry.client().models.pull("shapes@1", tmp_path / "student")

        assert registry.bytes_sent == sent

    def test_a_file_with_another_digest_is_removed(self, tmp_path: Path) -> None:
        registry = Registry()
        registry.files = FILES | {WEIGHTS: FILES[WEIGHTS][::-1]}

        with pytest.raises(tinyclip.DigestMismatch, match=r"open_clip_model\.safetensors has sha256 .* pull again"):
            registry.client().models.pull("shapes@1", tmp_path / "student")

        assert not (tmp_path / "student").exists()
        assert not list(tmp_path.rglob(WEIGHTS))

    def test_a_folder_that_holds_something_else_is_not_touched(self, tmp_path: Path) -> None:
        (tmp_path / "student").mkdir()
        (tmp_path / "student" / "thesis.tex").write_text("ten years of work")

        with pytest.raises(tinyclip.InputError, match="student exists and is not shapes@1: remove it or name another directory"):
            Registry().client().models.pull("shapes@1", tmp_path / "student")

        assert (tmp_path / "student" / "thesis.tex").read_text() == "ten years of work"

    @pytest.mark.parametrize("path", ["../../.ssh/authorized_keys", "/etc/passwd"])
    def test_a_file_outside_of_the_directory_is_refused(self, tmp_path: Path, path: str) -> None:
        with pytest.raises(tinyclip.DigestMismatch, match="outside of the model's directory"):
            Registry({path: b"x"}).client().models.pull("shapes@1", tmp_path / "student")


class TestPullOfAnExport:
    def pull(self, dest: Path, **more: Any) -> Path:
        return Registry(FILES | EXPORTS).client().models.pull("shapes@1", dest, **more)

    def test_a_version_is_downloaded_without_its_exports(self, tmp_path: Path) -> None:
        Registry().client().models.pull("shapes@1", tmp_path / "before")

        assert contents(self.pull(tmp_path / "student")) == FILES
        assert contents(self.pull(tmp_path / "before")) == FILES  # it was complete before there were exports

    def test_an_export_is_downloaded_alone(self, tmp_path: Path) -> None:
        folder = self.pull(tmp_path / "graph", export="onnx")

        assert contents(folder) == {"image.onnx": b"graph" * 100, "more/a.bin": b"x"}
        assert [entry.name for entry in tmp_path.iterdir()] == ["graph"]

    def test_the_error_for_an_unknown_export_lists_the_known_ones(self, tmp_path: Path) -> None:
        with pytest.raises(tinyclip.InputError, match="shapes@1 has no export hf: it has onnx, onnx-int8"):
            self.pull(tmp_path / "graph", export="hf")
        with pytest.raises(tinyclip.InputError, match="it has none; make one with models export"):
            Registry().client().models.pull("shapes@1", tmp_path / "graph", export="hf")

    def test_a_version_and_its_exports_need_different_folders(self, tmp_path: Path) -> None:
        self.pull(tmp_path / "there", export="onnx")

        with pytest.raises(tinyclip.InputError, match="there exists and is not shapes@1: "):
            self.pull(tmp_path / "there")
        with pytest.raises(tinyclip.InputError, match="there exists and is not shapes@1 as onnx-int8: "):
            self.pull(tmp_path / "there", export="onnx-int8")


class TestImport:
    WEIGHTS = bytes(range(256)) * 9000
    """More than two pieces."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "TinyCLIP.pt").write_bytes(self.WEIGHTS)
        return tmp_path / "TinyCLIP.pt"

    @pytest.fixture
    def server(self) -> Recorder:
        return Recorder(httpx.Response(201, json=version()))

    def test_a_file_is_sent_with_its_options(self, connect: Connect, file: Path, server: Recorder) -> None:
        progress: list[tuple[int, int]] = []

        imported = connect(server).models.import_file(
            file, name="tiny", preset="ViT-B-32", quick_gelu=True, origin="ViT-B-32@openai",
            on_progress=lambda *sent: progress.append(sent),
        )  # fmt: skip

        (request,) = server.requests
        length = len(self.WEIGHTS)
        assert (imported.name, imported.version) == ("shapes", 1)
        assert request.url.path == "/v1/models/import"
        options = {"name": "tiny", "preset": "ViT-B-32", "quick_gelu": "true", "origin": "ViT-B-32@openai"}
        assert dict(request.url.params) == {"file": "TinyCLIP.pt", **options}
        assert (request.headers["content-type"], request.headers["content-length"]) == ("application/octet-stream", str(length))
        assert request.content == self.WEIGHTS
        assert progress[-1] == (length, length)
        assert len(progress) == 3

    def test_a_retry_sends_all_of_it_again_under_the_same_key(self, file: Path) -> None:
        unavailable = httpx.Response(503, json={"title": "no", "status": 503, "code": "unavailable", "retryable": True})
        server = Recorder(unavailable, httpx.Response(201, json=version()))

        client_of(server, RETRIES).models.import_file(file)

        first, second = server.requests
        assert first.content == second.content == self.WEIGHTS
        assert first.headers["idempotency-key"] == second.headers["idempotency-key"]

    def test_the_model_files_of_a_directory_are_sent_as_a_tar(self, tmp_path: Path, server: Recorder) -> None:
        folder = tmp_path / "my-clip"
        folder.mkdir()
        sent = {"open_clip_config.json": b'{"model_cfg": {}}', "open_clip_model.safetensors": self.WEIGHTS}
        ignored = {"open_clip_pytorch_model.bin": b"again", "notes.txt": b"private", "README.md": b"#"}
        for name, content in (sent | ignored).items():
            (folder / name).write_bytes(content)

        client_of(server).models.import_file(folder)

        (request,) = server.requests
        assert (request.headers["content-type"], request.url.params["file"]) == ("application/x-tar", "my-clip")
        assert len(request.content) == int(request.headers["content-length"])
        with tarfile.open(fileobj=io.BytesIO(request.content)) as tar:
            assert {member.name: tar.extractfile(member).read() for member in tar} == sent  # type: ignore[union-attr]

    def test_of_a_source_only_the_name_is_sent(self, server: Recorder) -> None:
        client_of(server).models.import_source("s3://models/clip.pt", preset="ViT-B-32", quick_gelu=False)

        body = json.loads(server.requests[0].content)
        assert body == {"source": "s3://models/clip.pt", "preset": "ViT-B-32", "quick_gelu": False}

    def test_a_path_without_a_model_is_refused_before_anything_is_sent(self, tmp_path: Path, server: Recorder) -> None:
        (tmp_path / "empty").mkdir()

        for path, hint in ((tmp_path / "ghost.pt", "--on-server"), (tmp_path / "empty", "open_clip_model.safetensors")):
            with pytest.raises(tinyclip.InputError, match=hint):
                client_of(server).models.import_file(path)
        assert server.requests == []
