"""Every format opens in the library that it is for, as that library's own documentation says, and computes the same."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import open_clip
import pytest
import torch
import torch.nn.functional as F
from tinyclip.schemas import ExportFormat
from tinyclip.schemas.exports import unavailable_formats
from tinyclip_workers.data.images import eval_transform
from tinyclip_workers.exporting.check import ExportOff, agreement, check_export
from tinyclip_workers.exporting.formats import NotAvailable, make_export
from tinyclip_workers.exporting.samples import Samples
from tinyclip_workers.model.architecture import is_uniform
from tinyclip_workers.model.folders import LoadedModel, load_folder
from tinyclip_workers.model.preprocessing import normalize
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel, CLIPProcessor

from tests.workers.exports import LAYOUTS, MEAN, STD, TEXTS, files_below, loaded, pictures

SAMPLES = Samples("test", pictures(6), pictures(12)[6:], TEXTS)


@torch.no_grad()
def torch_of(model: LoadedModel) -> tuple[Tensor, Tensor]:
    """Unit embeddings of the samples' pictures and texts, by torch alone."""
    pixels = torch.stack([eval_transform(model.layout.image.image_size)(picture) for picture in SAMPLES.checked])
    images = model.model.encode_image(normalize(pixels, MEAN, STD))
    return F.normalize(images, dim=-1), F.normalize(model.model.encode_text(model.tokenizer(TEXTS)), dim=-1)


def near(found: Any, wanted: Tensor, most: float) -> None:
    np.testing.assert_allclose(np.asarray(found), wanted.numpy(), atol=most, rtol=0)


@pytest.mark.parametrize("kind", ["vit", "quick"])
def test_transformers_opens_model_and_processor_unchanged(tmp_path: Path, kind: str) -> None:
    model = loaded(LAYOUTS[kind])
    document = make_export(model, ExportFormat.HF, tmp_path, SAMPLES)
    images_BE, texts_BE = torch_of(model)

    theirs, processor = CLIPModel.from_pretrained(tmp_path).eval(), CLIPProcessor.from_pretrained(tmp_path)
    inputs = processor(text=TEXTS, images=SAMPLES.checked, return_tensors="pt", padding=True, truncation=True)
    with torch.no_grad():
        found = theirs(**inputs)

    assert inputs["input_ids"].shape[1] == 16
    near(found.text_embeds, texts_BE, 1e-5)
    # Their resizing rounds otherwise, and of an odd number of pixels they crop one more on the other side.
    middle = [row for row, picture in enumerate(SAMPLES.checked) if round(48 * max(picture.size) / min(picture.size)) % 2 == 0]
    assert len(middle) == 4
    near(found.image_embeds[middle], images_BE[middle], 1e-3)
    assert (found.image_embeds * images_BE).sum(dim=1).min() > 0.99
    near(found.logits_per_image, model.model.logit_scale.detach().exp() * found.image_embeds @ found.text_embeds.T, 1e-4)
    pixels = torch.stack([eval_transform(48)(picture) for picture in SAMPLES.checked])
    same = processor(images=list(pixels), return_tensors="pt")["pixel_values"]
    near(same, normalize(pixels, MEAN, STD), 1e-5)
    with torch.no_grad():
        near(F.normalize(theirs.get_image_features(pixel_values=same).pooler_output, dim=-1), images_BE, 1e-5)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["vision_config"]["hidden_act"] == ("quick_gelu" if kind == "quick" else "gelu")
    assert config["text_config"]["eos_token_id"] == 49407
    assert {file.path for file in document.files} == files_below(tmp_path)


def test_the_exported_tokenizer_reads_as_open_clip_s(tmp_path: Path) -> None:
    model = loaded(LAYOUTS["vit"])
    make_export(model, ExportFormat.HF, tmp_path, SAMPLES)

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)

    for text in TEXTS:
        ours = model.tokenizer(text)[0].tolist()
        assert tokenizer(text, truncation=True)["input_ids"] == ours[: ours.index(49407) + 1]


@pytest.mark.parametrize("kind", ["vit", "quick", "resnet"])
def test_open_clip_opens_the_folder_unchanged(tmp_path: Path, kind: str) -> None:
    model = loaded(LAYOUTS[kind])
    make_export(model, ExportFormat.OPEN_CLIP, tmp_path, SAMPLES)
    images_BE, texts_BE = torch_of(model)

    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    with torch.no_grad():
        images = theirs.eval().encode_image(torch.stack([preprocess(picture) for picture in SAMPLES.checked]), normalize=True)
        texts = theirs.encode_text(tokenizer(TEXTS), normalize=True)

    near(images, images_BE, 1e-5)
    near(texts, texts_BE, 1e-5)
    assert load_folder(str(tmp_path)).layout == model.layout


def onnx_of(folder: Path, model: LoadedModel, pixels: Tensor, texts: Sequence[str], batch: int) -> tuple[Any, Any]:
    """As anybody would ask ONNX Runtime, with so many at a time."""
    image, text = (onnxruntime.InferenceSession(folder / name) for name in ("image.onnx", "text.onnx"))
    images = [image.run(["image_embeds"], {"pixel_values": part.numpy()})[0] for part in pixels.split(batch)]
    tokens = model.tokenizer(list(texts))
    embeds = [text.run(["text_embeds"], {"input_ids": part.numpy()})[0] for part in tokens.split(batch)]
    return np.concatenate(images), np.concatenate(embeds)


@pytest.mark.parametrize("kind", ["vit", "resnet", "folded"])
def test_onnx_graphs_take_any_batch_and_any_model(tmp_path: Path, kind: str) -> None:
    model = loaded(LAYOUTS[kind])
    document = make_export(model, ExportFormat.ONNX, tmp_path, SAMPLES)
    images_BE, texts_BE = torch_of(model)
    transform = eval_transform(model.layout.image.image_size)
    pixels = normalize(torch.stack([transform(picture) for picture in SAMPLES.checked]), MEAN, STD)

    for batch in (1, 4, 6):
        images, texts = onnx_of(tmp_path, model, pixels, TEXTS, batch)
        near(images, images_BE, 1e-5)
        near(texts, texts_BE, 1e-5)

    assert document.check.text.largest_difference < 1e-5
    assert document.check.own_preprocessing.largest_difference < 1e-5
    assert document.check.texts_read_otherwise == 0
    assert {file.path for file in document.files} == {"image.onnx", "text.onnx", "settings.json", "tokenizer.json"}
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["logit_scale"] == pytest.approx(model.model.logit_scale.exp().item())
    assert (tmp_path / "image.onnx").read_bytes().find(b"tinyclip_workers/") == -1  # nothing of whose machine made it


@pytest.mark.parametrize(("kind", "calibrated"), [("vit", 0), ("resnet", 6)])
def test_int8_onnx_is_near_and_small(tmp_path: Path, kind: str, calibrated: int) -> None:
    model = loaded(LAYOUTS[kind])
    for precision in ("fp32", "int8"):
        (tmp_path / precision).mkdir()
    make_export(model, ExportFormat.ONNX, tmp_path / "fp32", SAMPLES)

    document = make_export(model, ExportFormat.ONNX, tmp_path / "int8", SAMPLES, int8=True)

    assert document.check.calibrated_on == calibrated
    assert document.check.image.mean_cosine > 0.99
    assert document.check.text.mean_cosine > 0.99
    assert document.check.image.largest_difference > 1e-6
    sizes = [(tmp_path / precision / "text.onnx").stat().st_size for precision in ("fp32", "int8")]
    assert sizes[1] < 0.35 * sizes[0]
    assert files_below(tmp_path / "int8") == files_below(tmp_path / "fp32")


@pytest.mark.parametrize(("kind", "int8"), [("vit", True), ("folded", False)])
def test_openvino_opens_the_folder(tmp_path: Path, kind: str, int8: bool) -> None:
    from tinyclip_workers.engines.openvino_engine import openvino_core

    model = loaded(LAYOUTS[kind])
    document = make_export(model, ExportFormat.OPENVINO, tmp_path, SAMPLES, int8=int8)
    images_BE, texts_BE = torch_of(model)
    pixels = torch.stack([eval_transform(48)(picture) for picture in SAMPLES.checked]).permute(0, 2, 3, 1).contiguous()

    config = {"INFERENCE_PRECISION_HINT": "f32"}
    image, text = (openvino_core().compile_model(tmp_path / name, "CPU", config) for name in ("image.xml", "text.xml"))

    images = image([pixels.numpy()])[0]
    near(text([model.tokenizer(TEXTS).numpy()])[0], texts_BE, 1e-5)
    if int8:
        assert (images * images_BE.numpy()).sum(axis=1).mean() > 0.99
        assert document.check.calibrated_on == 6
    else:
        near(images, images_BE, 1e-5)


@pytest.mark.parametrize(
    ("kind", "format", "says"),
    [
        ("resnet", ExportFormat.HF, "is a ResNet, and transformers' CLIPModel has none; it has onnx, openvino, open_clip"),
        ("folded", ExportFormat.HF, "its blocks differ in size"),
        ("folded", ExportFormat.OPEN_CLIP, "it has onnx, openvino"),
    ],
)
def test_a_format_that_a_model_cannot_have_is_refused(tmp_path: Path, kind: str, format: ExportFormat, says: str) -> None:
    with pytest.raises(NotAvailable, match=says):
        make_export(loaded(LAYOUTS[kind]), format, tmp_path, SAMPLES)

    assert files_below(tmp_path) == set()


@pytest.mark.parametrize("kind", LAYOUTS)
def test_what_open_clip_can_have_is_what_open_clip_can_build(kind: str) -> None:
    assert (ExportFormat.OPEN_CLIP not in unavailable_formats(LAYOUTS[kind])) == is_uniform(LAYOUTS[kind])


class Another:
    """An export of another model, or one that reads texts its own way."""

    def __init__(self, model: LoadedModel, images: float = 0.0, texts: float = 0.0, tokens: int = 0) -> None:
        images_BE, texts_BE = torch_of(model)
        self._images_BE, self._texts_BE = (F.normalize(each, dim=-1).numpy() for each in (images_BE + images, texts_BE + texts))
        self._model, self._tokens = model, tokens

    def images(self, pixels_BCSS: Tensor) -> Any:
        return self._images_BE

    def photos(self, pictures: Sequence[Any]) -> Any:
        return self._images_BE

    def texts(self, texts: Sequence[str]) -> Any:
        return self._texts_BE

    def tokens(self, texts: Sequence[str]) -> Any:
        ids_BT = self._model.tokenizer(list(texts)).numpy()
        ids_BT[: self._tokens, 1] = 7
        return ids_BT


@pytest.mark.parametrize(
    ("off", "int8", "says"),
    [
        ({"images": 1e-3}, False, "image embeddings differ from torch's by up to .*; 1e-05 is tolerated"),
        ({"texts": 1e-3}, False, "text embeddings differ from torch's by up to .*; 1e-05 is tolerated"),
        ({"images": 0.2}, True, "image embeddings have a mean cosine of 0.* to torch's; 0.99 is needed"),
        ({"tokens": 1}, False, "the exported tokenizer reads 1 of 6 texts as other tokens"),
    ],
)
def test_an_export_that_is_off_is_none(off: dict[str, Any], int8: bool, says: str) -> None:
    model = loaded(LAYOUTS["vit"])
    assert check_export(model, Another(model), SAMPLES, int8=int8, calibrated=0).image.largest_difference < 1e-6

    with pytest.raises(ExportOff, match=says):
        check_export(model, Another(model, **off), SAMPLES, int8=int8, calibrated=0)


def test_embeddings_that_are_no_numbers_are_off() -> None:
    ones = np.ones((2, 3), np.float32)

    with pytest.raises(ExportOff, match="finite False"):
        agreement(ones, ones * np.nan)
    with pytest.raises(ExportOff, match=r"the export gives \(1, 3\)"):
        agreement(ones, ones[:1])
