"""Teachers: found, checked without reading their weights, loaded, or refused with the way out."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from open_clip.pretrained import get_pretrained_cfg
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.spec import TeacherSpec
from tinyclip_workers.model.files import sources
from tinyclip_workers.model.files.errors import TeacherError
from tinyclip_workers.model.files.sources import check_teacher, find_teacher, load_teacher
from tinyclip_workers.model.layouts import PRESETS

from tests.workers.models import tiny_layout, tiny_model, write_folder


@pytest.mark.parametrize("used_token_ids", [None, [*range(0, 49408, 3), 49406, 49407]], ids=["whole", "compact"])
def test_a_folder_is_loaded_as_it_was_saved(tmp_path: Path, used_token_ids: list[int] | None) -> None:
    model = tiny_model()
    write_folder(tmp_path / "teacher", model, tiny_layout(), used_token_ids=used_token_ids)

    loaded = load_teacher(TeacherSpec(model=f"local-dir:{tmp_path}/teacher"))

    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded.model.encode_image(images), model.encode_image(images), atol=1e-3, rtol=1e-2)
    assert not loaded.model.training
    assert loaded.layout == tiny_layout()
    assert loaded.image_mean == (0.5, 0.5, 0.5)
    assert loaded.name == "teacher"
    assert loaded.tokenizer(["a cat"]).shape == (1, 16)


def test_a_folder_may_be_on_any_file_system(tmp_path: Path) -> None:
    write_folder(tmp_path, tiny_model(), tiny_layout())
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        ArtifactsStore("memory://teacher").write_bytes(name, (tmp_path / name).read_bytes())

    assert load_teacher(TeacherSpec(model="local-dir:memory://teacher")).layout == tiny_layout()


def test_the_layout_file_of_a_registry_version_is_trusted(tmp_path: Path) -> None:
    layout = tiny_layout().model_copy(update={"quick_gelu": True})
    write_folder(tmp_path, tiny_model(), tiny_layout())
    (tmp_path / "layout.json").write_text(layout.model_dump_json())
    (tmp_path / "model.json").write_text(json.dumps({"name": "emoji", "version": 3}))

    source = check_teacher(TeacherSpec(model=f"local-dir:{tmp_path}"))

    assert source.layout == layout
    assert source.name == "emoji@3"


def test_checking_does_not_read_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, tiny_model(), tiny_layout())
    monkeypatch.setattr("tinyclip_workers.model.files.folders.load_state_dict", None)

    assert check_teacher(TeacherSpec(model=f"local-dir:{tmp_path}")).layout == tiny_layout()


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    wider = tiny_layout().model_copy(update={"embed_dim": 24})
    write_folder(tmp_path, tiny_model(), tiny_layout())
    (tmp_path / "layout.json").write_text(wider.model_dump_json())

    with pytest.raises(TeacherError, match=r"text_projection has shape \(16, 16\), \(16, 24\) is needed") as error:
        check_teacher(TeacherSpec(model=f"local-dir:{tmp_path}"))

    assert error.value.pointer == "/teacher/model"


@pytest.mark.parametrize(
    ("spec", "pointer", "message"),
    [
        ({"model": "ViT-B-23"}, "/teacher/model", "did you mean ViT-B-32"),
        ({"model": "ViT-B-32"}, "/teacher/pretrained", "without weights ViT-B-32 is random; give one of openai"),
        ({"model": "ViT-B-32", "pretrained": "laion2b_s34b"}, "/teacher/pretrained", "did you mean laion2b_s34b_b79k"),
        ({"model": "ViT-B-32", "pretrained": "/nowhere/w.safetensors"}, "/teacher/pretrained", "/nowhere/w.safetensors"),
        ({"model": "ViT-B-32", "pretrained": "/nowhere/w.pt"}, "/teacher/pretrained", "convert it"),
        ({"model": "local-dir:/nowhere"}, "/teacher/model", "there is no model folder at /nowhere"),
        ({"model": "local-dir:gs://bucket/teacher"}, "/teacher/model", "needs a driver for gs://"),
        ({"model": "local-dir:http://example..org/teacher"}, "/teacher/model", "has a host name with an empty"),
        ({"model": "ViT-B-32", "pretrained": "gs://bucket/w.safetensors"}, "/teacher/pretrained", "needs a driver for gs://"),
        ({"model": "local-dir:/nowhere", "pretrained": "openai"}, "/teacher/pretrained", "remove pretrained"),
        ({"model": "registry:emoji@1"}, "/teacher/model", "server"),
    ],
)
def test_a_bad_teacher_is_refused_with_the_remedy(spec: dict[str, str], pointer: str, message: str) -> None:
    with pytest.raises(TeacherError, match=message) as error:
        check_teacher(TeacherSpec(**spec))

    assert error.value.pointer == pointer


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"readme.txt": ""}, "has no open_clip_config.json"),
        ({"open_clip_config.json": "{"}, "has no weights"),
        ({"open_clip_config.json": "{", "model.safetensors": ""}, "is not JSON"),
        ({"open_clip_config.json": "{}", "model.safetensors": ""}, "no model_cfg"),
    ],
)
def test_an_incomplete_folder_is_refused_with_the_missing_file(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)

    with pytest.raises(TeacherError, match=message):
        check_teacher(TeacherSpec(model=f"local-dir:{tmp_path}"))


def test_a_large_configuration_of_a_hub_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_bytes(b" " * (4 << 20) + b"{}")
    monkeypatch.setattr(sources, "_require_file", lambda *arguments, **options: None)
    monkeypatch.setattr(sources, "download_pretrained_from_hf", lambda *arguments, **options: tmp_path / "config.json")

    with pytest.raises(TeacherError, match="has more than 4,194,304 bytes"):
        check_teacher(TeacherSpec(model="hf-hub:a/b"))


@pytest.mark.parametrize("cached", [None, "/cache/old"])
@pytest.mark.parametrize("large", ["open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_large_files_of_a_hub_are_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: str, cached: str | None
) -> None:
    write_folder(tmp_path, tiny_model(), tiny_layout())
    downloaded: list[str] = []

    def metadata(url: str, **options: object) -> SimpleNamespace:
        return SimpleNamespace(size=(16 << 30) + 1 if url.endswith(large) else 1000)

    def download(repository: str, filename: str = "open_clip_model.safetensors") -> Path:
        downloaded.append(filename)
        return tmp_path / filename

    monkeypatch.setattr(sources, "try_to_load_from_cache", lambda *arguments: cached)
    monkeypatch.setattr(sources, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(sources, "download_pretrained_from_hf", download)

    for use in (check_teacher, load_teacher):
        with pytest.raises(TeacherError, match=rf"{large} of hf-hub:a/b has 17,179,869,185 bytes, at most .* are downloaded"):
            use(TeacherSpec(model="hf-hub:a/b"))
    assert set(downloaded) <= {"open_clip_config.json"} - {large}


def test_a_folder_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, tiny_model(), tiny_layout())
    monkeypatch.setattr(ArtifactsStore, "list", None)

    assert check_teacher(TeacherSpec(model=f"local-dir:{tmp_path}")).layout == tiny_layout()


def test_weights_trained_with_quick_gelu_get_it() -> None:
    assert get_pretrained_cfg("ViT-B-32", "openai")["quick_gelu"]

    source = find_teacher(TeacherSpec(model="ViT-B-32", pretrained="openai"))

    assert source.layout == PRESETS["ViT-B-32"].model_copy(update={"quick_gelu": True})
    assert source.name == "ViT-B-32@openai"


@pytest.mark.parametrize(
    "spec", [TeacherSpec(model="hf-hub:nobody/nothing"), TeacherSpec(model="ViT-B-32", pretrained="laion2b_s34b_b79k")]
)
def test_an_unreachable_hub_is_reported(spec: TeacherSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(sources, "try_to_load_from_cache", lambda *args: None)
    monkeypatch.setattr(sources, "get_hf_file_metadata", no_network)

    with pytest.raises(TeacherError, match=r"Name or service not known.*local-dir:PATH"):
        check_teacher(spec)
