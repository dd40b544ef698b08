"""Small models of the published architectures' kinds, and what importing them is held to."""

from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from tinyclip.schemas import ModelVersion
from tinyclip.schemas.layouts import Layout
from tinyclip.schemas.spec import ImageTower, StudentSpec, TextTower
from tinyclip_workers.importing.convert import Imported, write_import
from tinyclip_workers.model.architecture import PRESETS, resolve_layout
from tinyclip_workers.runtime.store import Store
from torch import Tensor

from tests.workers.models import tiny_model

VIT = resolve_layout(
    StudentSpec(
        embed_dim=24,
        image=ImageTower(layers=11, width=32, head_width=16, patch_size=16, image_size=32),  # blocks 2 and 10 sort wrongly
        text=TextTower(layers=2, width=32, heads=2, context_length=12, vocab_size=90),
    ),
    None,
)
RESNET = resolve_layout(
    StudentSpec(
        embed_dim=24,
        image=ImageTower(layers=(1, 2, 1, 1), width=4, head_width=32, image_size=32),
        text=TextTower(layers=2, width=32, heads=2, context_length=12, vocab_size=90),
    ),
    None,
)
LAYOUTS = {"vit": VIT, "resnet": RESNET}


@pytest.fixture(autouse=True)
def tiny_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published architectures of our size."""
    for name, layout in LAYOUTS.items():
        monkeypatch.setitem(PRESETS, f"TinyCLIP-{name}", layout)
        monkeypatch.setitem(PRESETS, f"plain-{name}", layout)


@pytest.fixture
def model(request: pytest.FixtureRequest) -> CLIP:
    return tiny_model(3, LAYOUTS[getattr(request, "param", "vit")])


def version_of(found: Imported, folder: Path, name: str = "imported") -> tuple[ModelVersion, Path]:
    return write_import(Store(str(folder)), name, 1, found), folder / f"models/{name}/1"


def embeddings(model: Any, layout: Layout, tokens_BT: Tensor | None = None) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    images_BCHW = torch.randn(3, 3, layout.image.image_size, layout.image.image_size)
    tokens_BT = torch.randint(1, layout.text.vocab_size, (4, layout.text.context_length)) if tokens_BT is None else tokens_BT
    with torch.no_grad():
        return model.encode_image(images_BCHW), model.encode_text(tokens_BT)


def assert_same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> None:
    for ours, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
