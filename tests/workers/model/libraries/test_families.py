"""Models of any architecture are found, loaded and run as their own libraries do."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from tinyclip.schemas.layouts import Architecture
from tinyclip.schemas.spec import TeacherSpec
from tinyclip_workers.model.files.errors import TeacherError
from tinyclip_workers.model.files.folders import find_folder, load_folder
from tinyclip_workers.model.files.sources import check_teacher
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.training.teachers.frozen import freeze_teachers

from tests.workers.families import FAMILIES, TRANSFORMERS, library_embeddings, write_family

TEXTS = ["a red square", "the photo of a blue circle in green", "emoji", "something unknown"]


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_are_those_of_its_library(tmp_path: Path, family: str) -> None:
    theirs = write_family(tmp_path, family)
    loaded = load_folder(str(tmp_path))
    size = loaded.layout.image_size
    images_BCHW = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    tokens_BT = loaded.tokenizer(TEXTS)
    expected = library_embeddings(theirs, images_BCHW, tokens_BT)
    [teacher] = freeze_teachers([loaded], [1.0], None, loaded)

    with torch.no_grad():
        found = teacher(images_BCHW, tokens_BT)

    torch.testing.assert_close(found.image_BE, expected["image"], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.text_BE, expected["text"], atol=1e-5, rtol=0)
    assert (found.image_BE[0] - found.image_BE[1]).abs().max() > 1e-3
    assert (found.text_BE[0] - found.text_BE[1]).abs().max() > 1e-3
    assert (found.sigmoid is not None) == ("SigLIP" in family)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in TRANSFORMERS])
def test_tokens_are_those_of_open_clip(tmp_path: Path, family: str) -> None:
    write_family(tmp_path, family)

    assert load_folder(str(tmp_path)).tokenizer(TEXTS).equal(open_clip.get_tokenizer(f"local-dir:{tmp_path}")(TEXTS))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_knows_its_sizes_without_its_weights(tmp_path: Path, family: str) -> None:
    theirs = write_family(tmp_path, family)

    source = check_teacher(TeacherSpec(model=f"local-dir:{tmp_path}"))
    summary = summarize(source.layout)

    assert isinstance(source.layout, Architecture)
    assert source.interpolation == "bilinear"
    assert summary.macs > 0
    scalars = sum(x.numel() for x in (theirs.logit_scale, getattr(theirs, "logit_bias", None)) if x is not None)
    total = sum(parameter.numel() for parameter in theirs.parameters())
    assert summary.image_params + summary.text_params + scalars == total
    assert summary.text_params_without_embedding < summary.text_params


def test_without_the_files_of_its_tokenizer_the_message_names_them(tmp_path: Path) -> None:
    write_family(tmp_path, "SigLIP")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()

    with pytest.raises(TeacherError, match=r"needs the files of the tokenizer timm/ViT-B-16-SigLIP: put tokenizer.json"):
        check_teacher(TeacherSpec(model=f"local-dir:{tmp_path}"))


def test_without_the_configuration_of_a_text_tower_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable of the same name is read at import
    write_family(tmp_path, "RoBERTa")
    (tmp_path / "config.json").unlink()

    with pytest.raises(TeacherError, match=r"text tower roberta-base .* put its config.json into the model's folder"):
        check_teacher(TeacherSpec(model=f"local-dir:{tmp_path}"))


@pytest.mark.parametrize(
    ("path", "value"),
    [(("vision_cfg", "timm_model_name"), "hf-hub:someone/model"), (("vision_cfg", "timm_model_name"), "local-dir:/etc"),
     (("text_cfg", "hf_model_name"), "../../etc"), (("vision_cfg", "timm_model_name"), "no_such_model")],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, path: tuple[str, str], value: str) -> None:
    write_family(tmp_path, "EVA02")
    file = tmp_path / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"][path[0]][path[1]] = value
    file.write_text(json.dumps(config))

    with pytest.raises(TeacherError):
        check_teacher(TeacherSpec(model=f"local-dir:{tmp_path}"))


def test_another_model_of_transformers_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write_family(tmp_path, "transformers CLIP")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')

    with pytest.raises(TeacherError, match=r"type bert; .* convert it to open_clip's layout"):
        check_teacher(TeacherSpec(model=f"local-dir:{tmp_path}"))


def test_a_folder_without_any_configuration_says_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")

    with pytest.raises(FileNotFoundError, match="a folder in the layout of open_clip or transformers is needed"):
        find_folder(str(tmp_path))
