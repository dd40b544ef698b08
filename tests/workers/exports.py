"""Small random models to export, and a version of one in a store."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.layouts import Layout
from tinyclip_workers.engines import openvino_engine
from tinyclip_workers.engines.builder import EngineBuilder
from tinyclip_workers.model.architecture import build_clip
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.model.tokenizers import make_tokenizer
from tinyclip_workers.model.towers import Clip
from tinyclip_workers.versions.writer import model_files, version_document, write_version

from tests.workers.models import tiny_layout
from tests.workers.students import random_image

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
"""Different from the usual values, so that a forgotten setting is detected."""
TEXTS = [
    "a red square", "A  Woman’s “boot” &amp; more", "naïve café 中文 1,234!", "x", "",
    "a text that is so long that no context of sixteen tokens could ever hold more than half of all the words that are in it",
]


def vit(*, quick_gelu: bool = False, layers: int = 2) -> Layout:
    return Layout.model_validate({
        "embed_dim": 24, "quick_gelu": quick_gelu,
        "image": {
            "kind": "vit", "image_size": 48, "width": 32, "layers": [layers], "head_width": 16, "patch_size": 16,
            "heads": [2] * layers, "mlp": [96] * layers,
        },
        "text": {
            "context_length": 16, "vocab_size": 49408, "width": 32, "layers": layers, "head_width": 8, "heads": [4] * layers,
            "mlp": [64] * layers,
        },
    })


def folded() -> Layout:
    """Return a layout as automatic inheritance creates it: blocks of different sizes, one without heads."""
    layout = vit().model_dump()
    layout["image"] |= {"heads": [1, 0], "mlp": [96, 40]}
    layout["text"] |= {"heads": [3, 4], "mlp": [0, 64]}
    return Layout.model_validate(layout)


def folded_block() -> Layout:
    """Return such a layout with one block a tower, which is traced in half the time."""
    layout = vit(layers=1).model_dump()
    layout["image"] |= {"heads": [1], "mlp": [40]}
    layout["text"] |= {"heads": [3]}
    return Layout.model_validate(layout)


LAYOUTS = {
    "vit": vit(), "quick": vit(quick_gelu=True), "resnet": tiny_layout(), "folded": folded(), "block": vit(layers=1),
    "folded block": folded_block(),
}  # fmt: skip


def random_model(kind: str, seed: int = 0) -> LoadedModel:
    """Return a model with random parameters; our own towers would otherwise have constant ones."""
    layout = LAYOUTS[kind]
    torch.manual_seed(seed)
    model = build_clip(layout).eval()
    if isinstance(model, Clip):
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return LoadedModel(model, layout, make_tokenizer(layout), MEAN, STD, "tiny@1", "")


def random_images(count: int) -> list[Image.Image]:
    """Return images of several shapes, so that a wrong crop is detected."""
    return [random_image(seed, [(90, 60), (50, 120), (48, 48), (200, 150)][seed % 4]) for seed in range(count)]


def write_model(store: ArtifactsStore, model: LoadedModel, **lineage: Any) -> None:
    """Write the version `tiny@1` of a registry."""
    files = model_files(model.layout, save(model.model.state_dict()), MEAN, STD, None)
    document = version_document("tiny", 1, summarize(model.layout), lineage=lineage)
    write_version(store, "models/tiny/1", document, files)


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def one_conversion() -> Iterator[None]:
    """Convert each tower of a student to OpenVINO once: its export and its engine have the same two graphs, made in seconds."""
    convert, made = openvino_engine._convert, dict[str, Any]()

    def once(*args: Any) -> Any:
        *_, tower = args
        if tower not in made:
            made[tower] = convert(*args)
        return made[tower]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino_engine, "_convert", once)
        yield


def assert_openvino_serves_the_same(student: LoadedModel, cache: Path, texts: list[str]) -> None:
    """Assert that OpenVINO has torch's embeddings, also for batches of other sizes than that of its trace."""
    builder = EngineBuilder(student, None, threads=1, cache=cache, device=torch.device("cpu"))
    torch_engine, openvino = (builder.build(name, builder.report(name, "auto")) for name in ("torch", "openvino"))
    size = student.layout.image_size
    squares = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    for part in (texts, texts[:1]):
        np.testing.assert_allclose(openvino.encode_text(part), torch_engine.encode_text(part), atol=1e-4)
    np.testing.assert_allclose(openvino.encode_image(squares), torch_engine.encode_image(squares), atol=1e-4)
