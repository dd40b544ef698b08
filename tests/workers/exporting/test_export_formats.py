"""Every format loads in its library, as that library documents, and computes the same."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import open_clip
import pytest
import torch
import torch.nn.functional as F
from tinyclip.schemas import EmbeddingType, ExportDocument, ExportFormat, ExportOptions, VocabularyChoice
from tinyclip_workers.data.eval_transform import eval_transform
from tinyclip_workers.exporting.check import ExportMismatch, agreement, check_export
from tinyclip_workers.exporting.exporter import FormatNotAvailable, create_export, format_functions
from tinyclip_workers.exporting.samples import Samples
from tinyclip_workers.model.files.folders import LoadedModel, load_folder
from tinyclip_workers.model.files.weights import EMBEDDING
from tinyclip_workers.model.preprocessing import normalize
from tinyclip_workers.model.vocabularies.vocabulary import Vocabulary, reduced_model, tokens_of
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel, CLIPProcessor

from tests.workers.exports import MEAN, STD, TEXTS, files_below, random_images, random_model

ONNX_FILES = {"image.onnx", "text.onnx", "settings.json", "tokenizer.json"}
SAMPLES = Samples("test", random_images(6), random_images(12)[6:], TEXTS)


@torch.no_grad()
def torch_embeddings(model: LoadedModel) -> tuple[Tensor, Tensor]:
    """Return torch's unit embeddings of the samples' images and texts."""
    pixels = torch.stack([eval_transform(model.layout.image_size)(image) for image in SAMPLES.checked])
    images = model.model.encode_image(normalize(pixels, MEAN, STD))
    return F.normalize(images, dim=-1), F.normalize(model.model.encode_text(model.tokenizer(TEXTS)), dim=-1)


def assert_near(actual: Any, expected: Tensor, tolerance: float) -> None:
    np.testing.assert_allclose(np.asarray(actual), expected.numpy(), atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", ["vit", "quick"])
def test_transformers_loads_model_and_processor(tmp_path: Path, kind: str) -> None:
    model = random_model(kind)
    document = create_export(model, ExportFormat.HF, tmp_path, SAMPLES)
    images_BE, texts_BE = torch_embeddings(model)

    theirs, processor = CLIPModel.from_pretrained(tmp_path).eval(), CLIPProcessor.from_pretrained(tmp_path)
    inputs = processor(text=TEXTS, images=SAMPLES.checked, return_tensors="pt", padding=True, truncation=True)
    with torch.no_grad():
        found = theirs(**inputs)

    assert inputs["input_ids"].shape[1] == 16
    assert_near(found.text_embeds, texts_BE, 1e-5)
    # transformers rounds differently when resizing, and crops an odd number of pixels on the other side.
    centered = [row for row, image in enumerate(SAMPLES.checked) if round(48 * max(image.size) / min(image.size)) % 2 == 0]
    assert len(centered) == 4
    assert_near(found.image_embeds[centered], images_BE[centered], 1e-3)
    assert (found.image_embeds * images_BE).sum(dim=1).min() > 0.99
    assert_near(found.logits_per_image, model.model.logit_scale.detach().exp() * found.image_embeds @ found.text_embeds.T, 1e-4)
    pixels = torch.stack([eval_transform(48)(image) for image in SAMPLES.checked])
    same = processor(images=list(pixels), return_tensors="pt")["pixel_values"]
    assert_near(same, normalize(pixels, MEAN, STD), 1e-5)
    with torch.no_grad():
        assert_near(F.normalize(theirs.get_image_features(pixel_values=same).pooler_output, dim=-1), images_BE, 1e-5)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["vision_config"]["hidden_act"] == ("quick_gelu" if kind == "quick" else "gelu")
    assert config["text_config"]["eos_token_id"] == 49407
    assert {file.path for file in document.files} == files_below(tmp_path)


def test_the_exported_tokenizer_returns_the_tokens_of_open_clip(tmp_path: Path) -> None:
    model = random_model("vit")
    create_export(model, ExportFormat.HF, tmp_path, SAMPLES)

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)

    for text in TEXTS:
        ours = model.tokenizer(text)[0].tolist()
        assert tokenizer(text, truncation=True)["input_ids"] == ours[: ours.index(49407) + 1]


@pytest.mark.parametrize("kind", ["vit", "quick", "resnet"])
def test_open_clip_loads_the_folder(tmp_path: Path, kind: str) -> None:
    model = random_model(kind)
    create_export(model, ExportFormat.OPEN_CLIP, tmp_path, SAMPLES)
    images_BE, texts_BE = torch_embeddings(model)

    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    with torch.no_grad():
        images = theirs.eval().encode_image(torch.stack([preprocess(image) for image in SAMPLES.checked]), normalize=True)
        texts = theirs.encode_text(tokenizer(TEXTS), normalize=True)

    assert_near(images, images_BE, 1e-5)
    assert_near(texts, texts_BE, 1e-5)
    assert load_folder(str(tmp_path)).layout == model.layout


def onnx_embeddings(folder: Path, model: LoadedModel, pixels: Tensor, texts: Sequence[str], batch: int) -> tuple[Any, Any]:
    """Run the graphs in ONNX Runtime, with batches of a given size."""
    image, text = (onnxruntime.InferenceSession(folder / name) for name in ("image.onnx", "text.onnx"))
    images = [image.run(["image_embeds"], {"pixel_values": part.numpy()})[0] for part in pixels.split(batch)]
    tokens = model.tokenizer(list(texts))
    embeds = [text.run(["text_embeds"], {"input_ids": part.numpy()})[0] for part in tokens.split(batch)]
    return np.concatenate(images), np.concatenate(embeds)


@pytest.fixture(scope="module")
def onnx_export(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[LoadedModel, Path, ExportDocument]]:
    """Return the fp32 ONNX export of a kind of model, created once: tracing takes seconds."""

    @cache
    def export(kind: str) -> tuple[LoadedModel, Path, ExportDocument]:
        model, folder = random_model(kind), tmp_path_factory.mktemp(kind)
        return model, folder, create_export(model, ExportFormat.ONNX, folder, SAMPLES)

    return export


# A folded model has every kind of block of a ViT, and blocks of different sizes.
@pytest.mark.parametrize("kind", ["folded", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("resnet", "vit"))])
def test_onnx_graphs_take_any_batch_and_any_model(kind: str, onnx_export: Any) -> None:
    model, folder, document = onnx_export(kind)
    images_BE, texts_BE = torch_embeddings(model)
    transform = eval_transform(model.layout.image_size)
    pixels = normalize(torch.stack([transform(image) for image in SAMPLES.checked]), MEAN, STD)

    for batch in (1, 4, 6):
        images, texts = onnx_embeddings(folder, model, pixels, TEXTS, batch)
        assert_near(images, images_BE, 1e-5)
        assert_near(texts, texts_BE, 1e-5)

    assert document.check.text.largest_difference < 1e-5
    assert document.check.own_preprocessing.largest_difference < 1e-5
    assert document.check.texts_read_otherwise == 0
    assert {file.path for file in document.files} == ONNX_FILES
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["logit_scale"] == pytest.approx(model.model.logit_scale.exp().item())
    assert (folder / "image.onnx").read_bytes().find(b"tinyclip_workers/") == -1  # no paths of the machine that created it


@pytest.mark.parametrize(("kind", "calibrated"), [("folded", 0), ("resnet", 6)])
def test_int8_onnx_is_near_and_small(tmp_path: Path, kind: str, calibrated: int) -> None:
    model = random_model(kind)
    fp32 = sum(4 * tensor.numel() for name, tensor in model.model.state_dict().items() if not name.startswith("visual."))

    document = create_export(model, ExportFormat.ONNX, tmp_path, SAMPLES, ExportOptions(int8=True))

    assert document.check.calibrated_on == calibrated
    assert document.check.image.mean_cosine > 0.99
    assert document.check.text.mean_cosine > 0.99
    assert document.check.image.largest_difference > 1e-6
    assert (tmp_path / "text.onnx").stat().st_size < 0.35 * fp32
    assert files_below(tmp_path) == ONNX_FILES


REDUCED, FP16, INT8 = VocabularyChoice.REDUCED, EmbeddingType.FP16, EmbeddingType.INT8
VOCABULARY = Vocabulary.of_tokens(tokens_of(TEXTS, 16))


@pytest.mark.parametrize(
    ("kind", "format", "embedding", "file", "bytes_per_number"),
    [
        ("vit", ExportFormat.HF, FP16, "model.safetensors", 2),
        ("resnet", ExportFormat.OPEN_CLIP, FP16, "open_clip_model.safetensors", 2),
        ("folded", ExportFormat.TINYCLIP, FP16, "model.safetensors", 2),
        ("vit", ExportFormat.TINYCLIP, INT8, "compact.safetensors", 1),
        ("folded", ExportFormat.TINYCLIP, INT8, "compact.safetensors", 1),
        ("folded block", ExportFormat.ONNX, FP16, "text.onnx", 2),
        # The embedding of `test_int8_onnx_is_near_and_small`, and one that ONNX has in each run.
        pytest.param("folded block", ExportFormat.ONNX, INT8, "text.onnx", 1, marks=pytest.mark.long),
        pytest.param("folded block", ExportFormat.OPENVINO, FP16, "text.bin", 2, marks=pytest.mark.long),
        ("folded block", ExportFormat.OPENVINO, INT8, "text.bin", 1),
    ],
)
def test_a_reduced_vocabulary_and_a_rounded_embedding_make_every_format_small(
    tmp_path: Path, kind: str, format: ExportFormat, embedding: EmbeddingType, file: str, bytes_per_number: int
) -> None:
    model = random_model(kind)
    small = reduced_model(model, VOCABULARY)
    others = sum(tensor.numel() for name, tensor in model.model.state_dict().items() if name != EMBEDDING)
    if file.startswith("text"):
        others -= sum(tensor.numel() for name, tensor in model.model.state_dict().items() if name.startswith("visual."))

    document = create_export(small, format, tmp_path, SAMPLES, ExportOptions(False, REDUCED, embedding))

    check = document.check
    assert check.image.largest_difference < 1e-5
    assert check.text.mean_cosine > 0.999
    assert 1e-7 < check.text.largest_difference < 0.02
    assert (document.embedding, document.vocabulary, check.texts_read_otherwise) == (embedding, REDUCED, 0)
    table = len(VOCABULARY) * model.layout.text.width * bytes_per_number
    assert 4 * others + table < (tmp_path / file).stat().st_size < 4 * others + table + 70_000
    exported = format_functions(format).load(tmp_path)
    cosines = (exported.encode_texts(TEXTS) * torch_embeddings(model)[1].numpy()).sum(axis=1)
    assert cosines.min() > 0.999


# The embeddings of a folded model in fp32 are also those of the file with an INT8 embedding above.
@pytest.mark.parametrize(("kind", "int8"), [("vit", True), pytest.param("folded", False, marks=pytest.mark.long)])
def test_openvino_loads_the_folder(tmp_path: Path, kind: str, int8: bool) -> None:
    from tinyclip_workers.engines.openvino_engine import openvino_core

    model = random_model(kind)
    document = create_export(model, ExportFormat.OPENVINO, tmp_path, SAMPLES, ExportOptions(int8=int8))
    images_BE, texts_BE = torch_embeddings(model)
    pixels = torch.stack([eval_transform(48)(image) for image in SAMPLES.checked]).permute(0, 2, 3, 1).contiguous()

    config = {"INFERENCE_PRECISION_HINT": "f32"}
    image, text = (openvino_core().compile_model(tmp_path / name, "CPU", config) for name in ("image.xml", "text.xml"))

    images = image([pixels.numpy()])[0]
    assert_near(text([model.tokenizer(TEXTS).numpy()])[0], texts_BE, 1e-5)
    if int8:
        assert (images * images_BE.numpy()).sum(axis=1).mean() > 0.99
        assert document.check.calibrated_on == 6
    else:
        assert_near(images, images_BE, 1e-5)


@pytest.mark.parametrize(
    ("kind", "format", "message"),
    [
        ("resnet", ExportFormat.HF, "is a ResNet, and transformers' CLIPModel has none; it has onnx, openvino, open_clip"),
        ("folded", ExportFormat.HF, "its blocks differ in size"),
        ("folded", ExportFormat.OPEN_CLIP, "it has onnx, openvino"),
    ],
)
def test_an_unavailable_format_is_refused(tmp_path: Path, kind: str, format: ExportFormat, message: str) -> None:
    with pytest.raises(FormatNotAvailable, match=message):
        create_export(random_model(kind), format, tmp_path, SAMPLES)

    assert files_below(tmp_path) == set()


class DifferingExport:
    """An export whose embeddings or tokens differ from the model's by a given amount."""

    def __init__(self, model: LoadedModel, images: float = 0.0, texts: float = 0.0, tokens: int = 0) -> None:
        images_BE, texts_BE = torch_embeddings(model)
        self._images_BE, self._texts_BE = (F.normalize(each, dim=-1).numpy() for each in (images_BE + images, texts_BE + texts))
        self._model, self._tokens = model, tokens

    def encode_pixels(self, pixels_BCSS: Tensor) -> Any:
        return self._images_BE

    def encode_images(self, images: Sequence[Any]) -> Any:
        return self._images_BE

    def encode_texts(self, texts: Sequence[str]) -> Any:
        return self._texts_BE

    def tokenize(self, texts: Sequence[str]) -> Any:
        ids_BT = self._model.tokenizer(list(texts)).numpy()
        ids_BT[: self._tokens, 1] = 7
        return ids_BT


@pytest.mark.parametrize(
    ("difference", "int8", "message"),
    [
        ({"images": 1e-3}, False, "image embeddings differ from torch's by up to .*; the tolerance is 1e-05"),
        ({"texts": 1e-3}, False, "text embeddings differ from torch's by up to .*; the tolerance is 1e-05"),
        ({"images": 0.2}, True, "image embeddings have a mean cosine of 0.* to torch's; at least 0.99 is required"),
        ({"tokens": 1}, False, "the exported tokenizer returns other tokens for 1 of 6 texts"),
    ],
)
def test_a_differing_export_is_refused(difference: dict[str, Any], int8: bool, message: str) -> None:
    model = random_model("vit")
    assert check_export(model, DifferingExport(model), SAMPLES, ExportOptions(int8=int8)).image.largest_difference < 1e-6

    with pytest.raises(ExportMismatch, match=message):
        check_export(model, DifferingExport(model, **difference), SAMPLES, ExportOptions(int8=int8))


def test_embeddings_that_are_not_finite_or_misshaped_are_refused() -> None:
    ones = np.ones((2, 3), np.float32)

    with pytest.raises(ExportMismatch, match="finite: False"):
        agreement(ones, ones * np.nan)
    with pytest.raises(ExportMismatch, match=r"the export returns \(1, 3\)"):
        agreement(ones, ones[:1])
