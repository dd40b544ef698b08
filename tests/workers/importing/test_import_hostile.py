"""Hostile files and files that are not models: refused with a reason; nothing in them is executed or written elsewhere."""

import io
import json
import os
import pickle
import signal
import sys
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip_workers.importing import convert, source_files
from tinyclip_workers.importing.convert import read_model, write_import
from tinyclip_workers.importing.source_files import ImportRefused

from tests.workers import hostile_files as hostile
from tests.workers.imports import RunsCommand, import_request, official_names, read, refusal, save
from tests.workers.models import tiny_layout, tiny_model, write_folder


def exchange(monkeypatch: pytest.MonkeyPatch, *lines: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the import process's `main` in this process on some input lines; return its output lines."""
    answers = io.StringIO()
    monkeypatch.setattr(convert, "take_stdout", lambda: answers)
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(line) + "\n" for line in lines)))
    convert.main()
    signal.alarm(0)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


class TestPickles:
    def test_a_hostile_checkpoint_is_refused_and_not_executed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        marker = tmp_path / "was-run"
        hostile = save(tmp_path / "m.pt", {"state_dict": tiny_model().state_dict(), "epoch": RunsCommand(marker)})

        (answer,) = exchange(monkeypatch, import_request(hostile, tmp_path / "scratch", preset="ViT-B-32", quick_gelu=False))

        assert not marker.exists()
        (error,) = answer["errors"]
        assert error["pointer"] == "/source"
        assert "was not opened: it references posix.system" in error["message"]
        torch.load(hostile, weights_only=False)
        assert marker.exists()  # the file is indeed hostile

    @pytest.mark.parametrize("protocol", [0, 2, 4])
    def test_a_pickle_that_torch_did_not_write_is_not_executed(self, protocol: int, tmp_path: Path) -> None:
        marker = tmp_path / "was-run"
        hostile = tmp_path / "m.pt"
        hostile.write_bytes(pickle.dumps(RunsCommand(marker), protocol))

        refusal(hostile, preset="ViT-B-32")

        assert not marker.exists()

    def test_a_torchscript_program_is_refused(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
            archive.writestr("m/constants.pkl", b"")

        assert "is a TorchScript program" in refusal(tmp_path / "m.pt").message

    def test_a_compressed_archive_is_refused(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "m.pt", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("m/data.pkl", bytes(10_000_000))

        assert "is a compressed archive" in refusal(tmp_path / "m.pt").message

    @pytest.mark.parametrize("content", [{"state_dict": {}}, {"epoch": 3}, [1, 2], {"a": torch.zeros(2), "b": "text"}, 7])
    def test_a_file_without_a_state_dict_is_refused(self, content: object, tmp_path: Path) -> None:
        assert refusal(save(tmp_path / "m.pt", content), preset="ViT-B-32").pointer == "/source"

    def test_a_truncated_file_is_refused(self, tmp_path: Path) -> None:
        whole = save(tmp_path / "m.pt", tiny_model().state_dict()).read_bytes()
        (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])

        assert "copy or download it again" in refusal(tmp_path / "cut.pt").message

    @pytest.mark.parametrize("content", [b"", b"hello, I am a model", bytes(100)])
    def test_bytes_of_no_known_format_are_refused(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "m.pt").write_bytes(content)

        assert "is neither a safetensors file nor one written by torch.save" in refusal(tmp_path / "m.pt").message


def test_safetensors_whose_header_has_the_first_byte_of_a_pickle_are_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "source", tiny_model(), tiny_layout())
    weights = folder / "open_clip_model.safetensors"
    data = weights.read_bytes()
    size = int.from_bytes(data[:8], "little")
    padding = (0x80 - size) % 256
    weights.write_bytes((size + padding).to_bytes(8, "little") + data[8 : 8 + size] + b" " * padding + data[8 + size :])

    assert weights.read_bytes()[:1] == source_files.PICKLE
    assert read(folder).summary.layout == tiny_layout()


class TestTars:
    def tar(self, path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
        with tarfile.open(path, "w") as tar:
            for info, content in members:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return path

    def test_a_directory_is_uploaded_as_a_tar(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "source", tiny_model(), tiny_layout())
        members = [(tarfile.TarInfo(file.name), file.read_bytes()) for file in folder.iterdir()]

        found = read(self.tar(tmp_path / "upload", *members), upload_name="source.tar")

        assert found.summary.layout == tiny_layout()
        assert found.lineage["import"]["file"] == "open_clip_model.safetensors"

    @pytest.mark.parametrize("name", ["../layout.json", "/etc/open_clip_config.json", "x/open_clip_config.json", "a.py"])
    def test_no_member_is_written_outside(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()

        error = refusal(self.tar(tmp_path / "in/upload", (tarfile.TarInfo(name), b"{}")), upload_name="m.tar")

        assert (error.pointer, repr(name) in error.message) == ("/file", True)
        assert [path.name for path in tmp_path.iterdir()] == ["in"]

    def test_links_are_refused(self, tmp_path: Path) -> None:
        link = tarfile.TarInfo("open_clip_model.safetensors")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"

        error = refusal(self.tar(tmp_path / "upload", (link, b"")), upload_name="m.tar")

        assert "only these plain files are read" in error.message

    @pytest.mark.parametrize(
        "member",
        [
            hostile.sparse("open_clip_model.safetensors", packed=0, size=50 * hostile.MIB),
            hostile.pax({"GNU.sparse.size": str(50 * hostile.MIB), "GNU.sparse.numblocks": "0", "GNU.sparse.map": "0,0"})
            + hostile.header("open_clip_model.safetensors"),
        ],
        ids=["GNU", "PAX"],
    )
    def test_a_small_tar_does_not_grow_on_the_disk(self, tmp_path: Path, member: bytes) -> None:
        (tmp_path / "upload").write_bytes(member + hostile.END)

        error = refusal(tmp_path / "upload", upload_name="m.tar")

        assert "only these plain files are read" in error.message
        assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < hostile.MIB

    @pytest.mark.parametrize(
        "headers",
        [
            (hostile.header("x", 2, tarfile.GNUTYPE_LONGNAME) + hostile.padded(b"a")) * 3000,
            hostile.pax({"GNU.sparse.size": "x", "GNU.sparse.map": "y"}),
            hostile.padded(hostile.header("x", 2 * hostile.MIB, b"x") + bytes(2 * hostile.MIB)),
        ],
        ids=["a long chain", "no numbers", "too large"],
    )
    def test_odd_extended_headers_are_refused(self, tmp_path: Path, headers: bytes) -> None:
        (tmp_path / "upload").write_bytes(headers + hostile.member("layout.json", b"{}") + hostile.END)

        assert "only these plain files are read" in refusal(tmp_path / "upload", upload_name="m.tar").message

    @pytest.mark.parametrize("kind", [b"x", b"g", b"L"])
    def test_a_large_extended_header_takes_little_memory(self, tmp_path: Path, kind: bytes) -> None:
        start = hostile.header("x", 100 * hostile.MIB, kind)
        upload = hostile.with_hole(tmp_path / "upload", start, 100 * hostile.MIB)
        tracemalloc.start()

        refusal(Path(upload), upload_name="m.tar")

        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 * hostile.MIB

    def test_a_damaged_tar_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "upload").write_bytes(hostile.member("layout.json", b"{}") + b"x" * 512 + hostile.END)

        assert "is not a complete tar" in refusal(tmp_path / "upload", upload_name="m.tar").message


class TestSources:
    @pytest.mark.parametrize("source", ["weights/m.pt", "http://127.0.0.1:9/m.pt", "https://example.org/m.pt", "/nowhere/m.pt", "memory://no"])
    def test_an_unreadable_source_is_refused(self, source: str, tmp_path: Path) -> None:
        with pytest.raises(ImportRefused) as refused:
            assert read_model(import_request(source, tmp_path / "scratch")).summary.layout == tiny_layout()

        assert (refused.value.pointer, refused.value.value) == ("/source", source)

    def test_a_file_that_is_too_large_is_refused(self, tmp_path: Path) -> None:
        file = save(tmp_path / "m.pt", tiny_model().state_dict())

        with pytest.raises(ImportRefused, match="at most 1,000 are read"):
            read_model(import_request(file, tmp_path / "scratch", limit=1000))

    def test_a_file_of_a_directory_that_is_too_large_is_refused(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "source", tiny_model(), tiny_layout())

        with pytest.raises(ImportRefused, match="at most 1,000 are read"):
            read_model(import_request(folder, tmp_path / "scratch", limit=1000))

    @pytest.mark.parametrize("name", ["model.pt", "open_clip_config.json"])
    def test_a_pipe_is_not_opened(self, tmp_path: Path, name: str) -> None:
        folder = write_folder(tmp_path / "source", tiny_model(), tiny_layout())
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        signal.alarm(20)  # opening a pipe would wait for ever

        with pytest.raises(ImportRefused, match="regular file"):
            read_model(import_request(folder / name if name == "model.pt" else folder, tmp_path / "scratch"))

        signal.alarm(0)

    @pytest.mark.parametrize("name", ["open_clip_pytorch_model.pt", "open_clip_model.safetensors", "open_clip_config.json"])
    def test_a_link_that_is_replaced_after_the_check_is_not_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        folder = write_folder(tmp_path / "source", tiny_model(), tiny_layout())
        if name.endswith(".pt"):
            (folder / "open_clip_model.safetensors").unlink()
            save(folder / name, tiny_model().state_dict())
        (folder / name).rename(tmp_path / "allowed")
        (tmp_path / "secret").write_bytes(b"secret")
        (folder / name).symlink_to(tmp_path / "allowed")
        expect_size = source_files._expect_size

        def replace_link(size: int, limit: int, refuse: source_files.Refuse) -> None:
            expect_size(size, limit, refuse)
            if size == (tmp_path / "allowed").stat().st_size:
                (folder / name).unlink()
                (folder / name).symlink_to(tmp_path / "secret")

        monkeypatch.setattr(source_files, "_expect_size", replace_link)

        assert read_model(import_request(folder, tmp_path / "scratch")).summary.layout == tiny_layout()

    def test_a_folder_is_not_listed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = write_folder(tmp_path / "source", tiny_model(), tiny_layout())
        store = ArtifactsStore("memory://imports/large")
        for file in folder.iterdir():
            store.write_bytes(file.name, file.read_bytes())
        monkeypatch.setattr(MemoryFileSystem, "ls", None)
        monkeypatch.setattr(Path, "iterdir", None)

        for source in (folder, "memory://imports/large"):
            assert read_model(import_request(source, tmp_path / "scratch")).summary.layout == tiny_layout()

    def test_a_remote_store_is_read(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "source", tiny_model(), tiny_layout())
        store = ArtifactsStore("memory://imports/source")
        for file in folder.iterdir():
            store.write_bytes(file.name, file.read_bytes())

        assert read_model(import_request("memory://imports/source", tmp_path / "scratch")).summary.layout == tiny_layout()


class TestProcess:
    def test_checks_the_file_and_writes_once_it_has_a_destination(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = write_folder(tmp_path / "source", tiny_model(), tiny_layout())
        destination = {"artifacts": str(tmp_path / "store"), "name": "tiny", "version": 4}

        checked, written = exchange(monkeypatch, import_request(folder, tmp_path / "scratch"), destination)

        assert checked["checked"]["layout"]["embed_dim"] == 16
        assert (written["document"]["name"], written["document"]["version"]) == ("tiny", 4)
        assert json.loads((tmp_path / "store/models/tiny/4/model.json").read_text()) == written["document"]

    @pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")])
    def test_too_little_memory_is_an_answer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        def load(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(torch, "load", load)
        file = save(tmp_path / "m.pt", tiny_model().state_dict())

        assert exchange(monkeypatch, import_request(file, tmp_path / "scratch")) == [{"exhausted": True}]

    def test_writes_nothing_without_a_destination(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = write_folder(tmp_path / "source", tiny_model(), tiny_layout())

        answers = exchange(monkeypatch, import_request(folder, tmp_path / "scratch"))

        assert [list(answer) for answer in answers] == [["checked"]]
        assert [path.name for path in tmp_path.iterdir()] == ["source"]

    def test_an_existing_version_is_not_overwritten(self, tmp_path: Path) -> None:
        found = read(write_folder(tmp_path / "source", tiny_model(), tiny_layout()))
        write_import(ArtifactsStore(str(tmp_path)), "tiny", 1, found)

        with pytest.raises(FileExistsError, match="already holds a version"):
            write_import(ArtifactsStore(str(tmp_path)), "tiny", 1, found)

    def test_no_version_exists_after_a_kill_while_writing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = read(write_folder(tmp_path / "source", tiny_model(), tiny_layout()))
        write_import(ArtifactsStore(str(tmp_path)), "tiny", 100, found)
        files = sorted(path.name for path in (tmp_path / "models/tiny/100").iterdir())
        assert len(files) == 6
        real = ArtifactsStore.write_bytes
        for version, last in enumerate(files, start=1):

            def dies(store: ArtifactsStore, path: str, data: bytes, last: str = last) -> None:
                if path.endswith(last):
                    raise KeyboardInterrupt
                real(store, path, data)

            monkeypatch.setattr(ArtifactsStore, "write_bytes", dies)
            with pytest.raises(KeyboardInterrupt):
                write_import(ArtifactsStore(str(tmp_path)), "tiny", version, found)
            assert not (tmp_path / f"models/tiny/{version}/model.json").exists()


def test_official_names_of_another_model_are_refused(tmp_path: Path) -> None:
    state = official_names({"visual.conv1.weight": torch.zeros(1, 3, 2, 2), "logit_scale": torch.tensor(1.0)})

    assert "has no tensor token_embedding.weight" in refusal(save(tmp_path / "m.pt", state)).message
