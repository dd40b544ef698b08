"""A student with a tokenizer of its own is exported with it."""

from dataclasses import replace
from pathlib import Path

import onnxruntime
import open_clip
import pytest
import torch
from tinyclip.schemas import ExportFormat
from tinyclip_workers.exporting.exporter import create_export
from tinyclip_workers.exporting.samples import Samples
from tinyclip_workers.model.architecture import build_clip
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.tokenizers import make_tokenizer
from tinyclip_workers.model.vocabularies.tokenizer_training import train_tokenizer
from tinyclip_workers.model.vocabularies.vocabulary_change import vocabulary_of
from tokenizers import Tokenizer
from transformers import AutoTokenizer, CLIPModel

from tests.workers.exports import LAYOUTS, TEXTS, random_images, random_model

SAMPLES = Samples("test", random_images(6), random_images(12)[6:], TEXTS)
CAPTIONS = {"en": ["a red square", "a woman's boot & more"], "zh": ["中文", "一个红色的正方形"]}


@pytest.fixture(scope="module")
def student() -> LoadedModel:
    source = train_tokenizer(CAPTIONS, 2000, "en")
    text = LAYOUTS["block"].text.model_copy(update={"vocab_size": len(vocabulary_of(source))})
    layout = LAYOUTS["block"].model_copy(update={"text": text})
    torch.manual_seed(0)
    model = build_clip(layout).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    tokenizer = make_tokenizer(layout, source)
    return replace(random_model("block"), model=model, layout=layout, tokenizer=tokenizer, tokenizer_source=source)


def tokens_of(student: LoadedModel, text: str) -> list[int]:
    tokens = student.tokenizer(text)[0]
    return [int(id) for id in tokens[: int(tokens.argmax()) + 1]]


def test_transformers_reads_its_tokens_and_computes_the_same(tmp_path: Path, student: LoadedModel) -> None:
    create_export(student, ExportFormat.HF, tmp_path, SAMPLES)

    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path), CLIPModel.from_pretrained(tmp_path).eval()

    for text in TEXTS:
        assert tokenizer(text, truncation=True)["input_ids"] == tokens_of(student, text)
    with torch.no_grad():
        inputs = tokenizer(TEXTS, truncation=True, padding=True, return_tensors="pt")
        found = model.get_text_features(**inputs)
        expected = student.model.encode_text(student.tokenizer(TEXTS))
    found = found if isinstance(found, torch.Tensor) else found.pooler_output
    assert torch.allclose(found, expected, atol=1e-5)


def test_open_clip_reads_its_tokens(tmp_path: Path, student: LoadedModel) -> None:
    create_export(student, ExportFormat.OPEN_CLIP, tmp_path, SAMPLES)

    assert open_clip.get_tokenizer(f"local-dir:{tmp_path}")(TEXTS).equal(student.tokenizer(TEXTS))


def test_onnx_has_its_tokenizer(tmp_path: Path, student: LoadedModel) -> None:
    create_export(student, ExportFormat.ONNX, tmp_path, SAMPLES)

    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    [path] = [file for file in tmp_path.iterdir() if file.name.startswith("text") and file.suffix == ".onnx"]
    session = onnxruntime.InferenceSession(path)
    for text in TEXTS:
        encoded = tokenizer.encode(text)
        assert [id for id in encoded.ids if id] == tokens_of(student, text)
    ids = torch.tensor([each.ids for each in tokenizer.encode_batch(TEXTS)]).numpy()
    found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: ids})[0])
    with torch.no_grad():
        expected = student.model.encode_text(student.tokenizer(TEXTS), normalize=True)
    assert torch.allclose(torch.nn.functional.normalize(found, dim=-1), expected, atol=1e-4)
