"""Files that mean harm, or are no models at all: refused with a reason, and nothing in them is run or written elsewhere."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip_workers.importing import convert as importing
from tinyclip_workers.importing.convert import read_model, write_import
from tinyclip_workers.importing.files import ImportRefused
from tinyclip_workers.runtime.store import Store

from tests.workers.models import tiny_layout, tiny_model, write_folder
from tests.workers.official_files import official_names, question, read, refusal, save


class Runs:
    """A pickle of this runs a command where it is opened carelessly."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def converse(asked: dict[str, Any], *places: dict[str, Any]) -> list[dict[str, Any]]:
    """A whole conversation with a process of its own."""
    lines = "".join(json.dumps(line) + "\n" for line in (asked, *places))
    done = subprocess.run(
        [sys.executable, "-m", "tinyclip_workers.importing.convert"],
        input=lines, capture_output=True, text=True, timeout=120, check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


class TestPickles:
    def test_a_hostile_one_runs_nothing(self, tmp_path: Path) -> None:
        marker = tmp_path / "was-run"
        hostile = save(tmp_path / "m.pt", {"state_dict": tiny_model().state_dict(), "epoch": Runs(marker)})

        (answer,) = converse(question(hostile, tmp_path / "scratch", preset="ViT-B-32", quick_gelu=False))

        assert not marker.exists()
        (error,) = answer["errors"]
        assert error["pointer"] == "/source"
        assert "was not opened: it asks for posix.system" in error["message"]
        careless = "import sys, torch; torch.load(sys.argv[1], weights_only=False)"
        subprocess.run([sys.executable, "-c", careless, str(hostile)], timeout=120, check=True)
        assert marker.exists()  # the file does mean it

    @pytest.mark.parametrize("protocol", [0, 2, 4])
    def test_nor_does_one_that_torch_did_not_write(self, protocol: int, tmp_path: Path) -> None:
        marker = tmp_path / "was-run"
        hostile = tmp_path / "m.pt"
        hostile.write_bytes(pickle.dumps(Runs(marker), protocol))

        refusal(hostile, preset="ViT-B-32")

        assert not marker.exists()

    def test_a_program_is_not_run_for_its_weights(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
            archive.writestr("m/constants.pkl", b"")

        assert "is a TorchScript program" in refusal(tmp_path / "m.pt").message

    def test_a_compressed_archive_is_not_unpacked(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "m.pt", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("m/data.pkl", bytes(10_000_000))

        assert "is a compressed archive" in refusal(tmp_path / "m.pt").message

    @pytest.mark.parametrize("content", [{"state_dict": {}}, {"epoch": 3}, [1, 2], {"a": torch.zeros(2), "b": "text"}, 7])
    def test_what_holds_no_state_dict_is_told(self, content: object, tmp_path: Path) -> None:
        assert refusal(save(tmp_path / "m.pt", content), preset="ViT-B-32").pointer == "/source"

    def test_a_file_that_was_cut_off_is_told(self, tmp_path: Path) -> None:
        whole = save(tmp_path / "m.pt", tiny_model().state_dict()).read_bytes()
        (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])

        assert "copy or download it again" in refusal(tmp_path / "cut.pt").message

    @pytest.mark.parametrize("content", [b"", b"hello, I am a model", bytes(100)])
    def test_bytes_that_are_nothing_are_told(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "m.pt").write_bytes(content)

        assert "is neither a safetensors file nor one that torch.save wrote" in refusal(tmp_path / "m.pt").message


class TestTars:
    def tar(self, path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
        with tarfile.open(path, "w") as tar:
            for info, content in members:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return path

    def test_a_directory_comes_as_one(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "source", tiny_model(), tiny_layout())
        members = [(tarfile.TarInfo(file.name), file.read_bytes()) for file in folder.iterdir()]

        found = read(self.tar(tmp_path / "upload", *members), called="source.tar")

        assert found.summary.layout == tiny_layout()
        assert found.lineage["import"]["file"] == "open_clip_model.safetensors"

    @pytest.mark.parametrize("name", ["../layout.json", "/etc/open_clip_config.json", "x/open_clip_config.json", "a.py"])
    def test_nothing_is_written_outside(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()

        error = refusal(self.tar(tmp_path / "in/upload", (tarfile.TarInfo(name), b"{}")), called="m.tar")

        assert (error.pointer, repr(name) in error.message) == ("/file", True)
        assert [path.name for path in tmp_path.iterdir()] == ["in"]

    def test_links_are_refused(self, tmp_path: Path) -> None:
        link = tarfile.TarInfo("open_clip_model.safetensors")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"

        assert "only these plain files are read" in refusal(self.tar(tmp_path / "upload", (link, b"")), called="m.tar").message


class TestSources:
    @pytest.mark.parametrize("source", ["weights/m.pt", "http://127.0.0.1:9/m.pt", "https://example.org/m.pt", "/nowhere/m.pt", "memory://no"])
    def test_what_cannot_be_read_is_told(self, source: str, tmp_path: Path) -> None:
        with pytest.raises(ImportRefused) as refused:
            read_at(source, tmp_path)

        assert (refused.value.pointer, refused.value.value) == ("/source", source)

    def test_a_file_that_is_too_large_is_not_read(self, tmp_path: Path) -> None:
        file = save(tmp_path / "m.pt", tiny_model().state_dict())

        with pytest.raises(ImportRefused, match="at most 1,000 are read"):
            read_at(str(file), tmp_path, limit=1000)

    def test_a_store_elsewhere_is_read_from(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "source", tiny_model(), tiny_layout())
        store = Store("memory://imports/source")
        for file in folder.iterdir():
            store.write_bytes(file.name, file.read_bytes())

        assert read_at("memory://imports/source", tmp_path).summary.layout == tiny_layout()


class TestTheProcess:
    """What the server sees of it."""

    def test_checks_first_and_writes_when_it_is_told_where(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "source", tiny_model(), tiny_layout())
        place = {"artifacts": str(tmp_path / "store"), "name": "tiny", "version": 4}

        checked, written = converse(question(folder, tmp_path / "scratch"), place)

        assert checked["checked"]["layout"]["embed_dim"] == 16
        assert (written["document"]["name"], written["document"]["version"]) == ("tiny", 4)
        assert json.loads((tmp_path / "store/models/tiny/4/model.json").read_text()) == written["document"]

    def test_without_a_place_it_leaves_and_has_written_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = write_folder(tmp_path / "source", tiny_model(), tiny_layout())
        answers = io.StringIO()
        monkeypatch.setattr(importing, "take_stdout", lambda: answers)
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(question(folder, tmp_path / "scratch")) + "\n"))

        importing.main()

        signal.alarm(0)
        assert [list(json.loads(line)) for line in answers.getvalue().splitlines()] == [["checked"]]
        assert [path.name for path in tmp_path.iterdir()] == ["source"]

    def test_a_version_that_is_there_is_not_written_over(self, tmp_path: Path) -> None:
        found = read(write_folder(tmp_path / "source", tiny_model(), tiny_layout()))
        write_import(Store(str(tmp_path)), "tiny", 1, found)

        with pytest.raises(FileExistsError, match="holds a version already"):
            write_import(Store(str(tmp_path)), "tiny", 1, found)

    def test_killed_while_writing_it_leaves_no_version(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = read(write_folder(tmp_path / "source", tiny_model(), tiny_layout()))
        write_import(Store(str(tmp_path)), "tiny", 100, found)
        files = sorted(path.name for path in (tmp_path / "models/tiny/100").iterdir())
        assert len(files) == 6
        real = Store.write_bytes
        for version, last in enumerate(files, start=1):

            def dies(store: Store, path: str, data: bytes, last: str = last) -> None:
                if path.endswith(last):
                    raise KeyboardInterrupt
                real(store, path, data)

            monkeypatch.setattr(Store, "write_bytes", dies)
            with pytest.raises(KeyboardInterrupt):
                write_import(Store(str(tmp_path)), "tiny", version, found)
            assert not (tmp_path / f"models/tiny/{version}/model.json").exists()


def read_at(source: str, tmp_path: Path, limit: int = 1 << 30) -> Any:
    return read_model(question(source, tmp_path / "scratch", limit=limit))


def test_official_names_of_something_else_are_refused(tmp_path: Path) -> None:
    state = official_names({"visual.conv1.weight": torch.zeros(1, 3, 2, 2), "logit_scale": torch.tensor(1.0)})

    assert "has no tensor token_embedding.weight" in refusal(save(tmp_path / "m.pt", state)).message
