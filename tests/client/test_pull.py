"""A pulled model is the one announced, whole or not there."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import tinyclip
from tinyclip import AsyncClient, Client, Retries

from tests.client.documents import JSON, LAYOUT

WEIGHTS = "open_clip_model.safetensors"
FILES = {"open_clip_config.json": b'{"model_cfg": {}}', WEIGHTS: bytes(range(256)) * 40, "notes/card.md": b"# Shapes"}


def version(files: dict[str, bytes]) -> JSON:
    listed = [
        {"path": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()
    ]
    return {
        "name": "shapes", "version": 1, "params": {"image": 1, "text": 1, "text_without_embedding": 1},
        "macs": 1, "embed_dim": 64,
        "image_size": 32, "context_length": 16, "layout": LAYOUT, "files": listed, "created_at": "2026-01-02T03:04:05Z",
    }


class CutOff(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body of which only a part arrives."""

    def __init__(self, sent: bytes) -> None:
        self._sent = sent

    def __iter__(self) -> Iterator[bytes]:
        yield self._sent
        raise httpx.ReadError("connection reset")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._sent
        raise httpx.ReadError("connection reset")


class Registry:
    """Serves one version; its weights' first answers can be cut off, and it may not know ranges."""

    def __init__(self, files: dict[str, bytes] | None = None, *, cuts: int = 0, ranges: bool = True) -> None:
        self.files = files or FILES
        self.listed = version(self.files)
        self.ranges_asked: list[str | None] = []
        self.bytes_sent = 0
        self._cuts = cuts
        self._ranges = ranges

    def handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/v1/models/shapes/versions/")
        if path in ("1", "latest", "best"):
            return httpx.Response(200, json=self.listed)
        name = path.removeprefix("1/files/")
        given = request.headers.get("range")
        begin = int(given.removeprefix("bytes=").rstrip("-")) if given and self._ranges else 0
        if name == WEIGHTS:
            self.ranges_asked.append(given)
        return httpx.Response(206 if begin else 200, stream=self._body(name, self.files[name][begin:]))

    def _body(self, name: str, content: bytes) -> httpx.SyncByteStream | httpx.AsyncByteStream:
        if name == WEIGHTS and self._cuts > 0:
            self._cuts -= 1
            self.bytes_sent += 1000
            return CutOff(content[:1000])
        self.bytes_sent += len(content)
        return httpx.ByteStream(content)


def client_of(registry: Registry) -> Client:
    return Client("http://server", retries=Retries(first_wait=0.0, attempts=3), transport=httpx.MockTransport(registry.handle))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("reference", ["shapes@1", "shapes@best", "shapes"])
def test_a_version_is_pulled_whole(tmp_path: Path, reference: str) -> None:
    where = client_of(Registry()).models.pull(reference, tmp_path / "student")

    assert where == tmp_path / "student"
    assert contents(where) == FILES
    assert [entry.name for entry in tmp_path.iterdir()] == ["student"]


async def test_a_version_is_pulled_whole_in_a_task(tmp_path: Path) -> None:
    registry = Registry(cuts=1)
    transport = httpx.MockTransport(registry.handle)
    async with AsyncClient("http://server", retries=Retries(first_wait=0.0), transport=transport) as client:
        where = await client.models.pull("shapes@1", tmp_path / "student")

    assert contents(where) == FILES
    assert registry.ranges_asked == [None, "bytes=1000-"]


def test_a_file_that_was_cut_off_is_gone_on_with(tmp_path: Path) -> None:
    registry = Registry(cuts=2)

    client_of(registry).models.pull("shapes@1", tmp_path / "student")

    assert registry.ranges_asked == [None, "bytes=1000-", "bytes=2000-"]
    assert contents(tmp_path / "student") == FILES


def test_a_server_without_ranges_sends_it_again(tmp_path: Path) -> None:
    registry = Registry(cuts=1, ranges=False)

    client_of(registry).models.pull("shapes@1", tmp_path / "student")

    assert contents(tmp_path / "student") == FILES


def test_an_interrupted_pull_leaves_nothing_at_its_place_and_the_next_goes_on(tmp_path: Path) -> None:
    away = Registry(cuts=1)

    def leave(request: httpx.Request) -> httpx.Response:
        if away.ranges_asked:
            raise httpx.ConnectError("refused")
        return away.handle(request)

    gone = Client("http://server", retries=Retries(first_wait=0.0, attempts=2), transport=httpx.MockTransport(leave))
    with pytest.raises(tinyclip.CannotReachServer):
        gone.models.pull("shapes@1", tmp_path / "student")
    assert not (tmp_path / "student").exists()

    back = Registry()
    client_of(back).models.pull("shapes@1", tmp_path / "student")

    assert contents(tmp_path / "student") == FILES
    assert back.ranges_asked == ["bytes=1000-"]


def test_pulling_again_fetches_nothing(tmp_path: Path) -> None:
    registry = Registry()
    client_of(registry).models.pull("shapes@1", tmp_path / "student")
    sent = registry.bytes_sent

    client_of(registry).models.pull("shapes@1", tmp_path / "student")

    assert registry.bytes_sent == sent


def test_what_is_not_the_file_announced_is_thrown_away(tmp_path: Path) -> None:
    registry = Registry()
    registry.files = FILES | {WEIGHTS: FILES[WEIGHTS][::-1]}

    with pytest.raises(tinyclip.DigestMismatch, match=r"open_clip_model\.safetensors has sha256 .* pull again"):
        client_of(registry).models.pull("shapes@1", tmp_path / "student")

    assert not (tmp_path / "student").exists()
    assert not list(tmp_path.rglob(WEIGHTS))


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "thesis.tex").write_text("ten years of work")

    with pytest.raises(tinyclip.InputError, match="student exists and is not shapes@1: remove it or name another directory"):
        client_of(Registry()).models.pull("shapes@1", tmp_path / "student")

    assert (tmp_path / "student" / "thesis.tex").read_text() == "ten years of work"


@pytest.mark.parametrize("path", ["../../.ssh/authorized_keys", "/etc/passwd"])
def test_a_file_outside_of_the_directory_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(tinyclip.DigestMismatch, match="outside of the model's directory"):
        client_of(Registry({path: b"x"})).models.pull("shapes@1", tmp_path / "student")
