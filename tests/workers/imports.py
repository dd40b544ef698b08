"""Files to import, as published programs write them, imports of them, and comparisons of what they compute."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import ModelVersion
from tinyclip.schemas.layouts import Layout
from tinyclip.schemas.spec import ImageTower, StudentSpec, TextTower
from tinyclip_workers.importing.convert import ImportedModel, read_model, write_import
from tinyclip_workers.importing.source_files import ImportRefused
from tinyclip_workers.model.architecture import resolve_layout
from torch import Tensor

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


def official_names(state: Mapping[str, Tensor], *, ddp: bool = False, doubled: bool = False) -> dict[str, Tensor]:
    """Rename a state dict as the official implementation saves it; `doubled`: each tensor twice, as after the prune step."""
    named = {}
    module = "module." if ddp else ""
    for name, tensor in state.items():
        if name == "logit_scale":
            named[f"_logit_scale.{module}logit_scale"] = tensor
            continue
        tower = "image" if name.startswith("visual.") else "text"
        named[f"_{tower}_encoder.{module}{name}"] = tensor
        if doubled:
            named[f"{tower}_encoder_without_ddp.{name}"] = tensor
    return named


def checkpoint(state: Mapping[str, Tensor], wrapper: str = "state_dict") -> dict[str, Any]:
    """Return a checkpoint with the entries that the official implementation saves beside the weights."""
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    scaler = {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 0}
    return {"epoch": 5, "iter_in_epoch": 100, "name": "run", wrapper: dict(state), "optimizer": [optimizer.state_dict()] * 3,
            "scaler": scaler}


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def import_request(
    source: Path | str, scratch: Path, *, upload_name: str | None = None, limit: int = 1 << 30, **options: Any
) -> dict[str, Any]:
    return {
        "source": str(source), "upload_name": upload_name, "scratch": str(scratch), "limit": limit, "seconds": 60,
        "pointer": "/file" if upload_name else "/source", "options": options,
    }


def read(source: Path | str, **options: Any) -> ImportedModel:
    """Import a source up to the point of writing; `upload_name`: the file name of an upload."""
    folder = Path(source).parent
    return read_model(import_request(source, folder / "scratch", **options))


def refusal(source: Path | str, **options: Any) -> ImportRefused:
    try:
        read(source, **options)
    except ImportRefused as error:
        return error
    raise AssertionError("the import was not refused")


class RunsCommand:
    """A pickle that creates the file `marker` when it is loaded without `weights_only`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def version_of(imported: ImportedModel, folder: Path, name: str = "imported") -> tuple[ModelVersion, Path]:
    """Write the import as version 1 of a registry in `folder`; return its document and its folder."""
    return write_import(ArtifactsStore(str(folder)), name, 1, imported), folder / f"models/{name}/1"


def embeddings(model: Any, layout: Layout, tokens_BT: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return embeddings of random images and texts, the same for every model of a layout."""
    torch.manual_seed(0)
    images_BCHW = torch.randn(3, 3, layout.image_size, layout.image_size)
    tokens_BT = torch.randint(1, layout.vocab_size, (4, layout.context_length)) if tokens_BT is None else tokens_BT
    with torch.no_grad():
        return model.encode_image(images_BCHW), model.encode_text(tokens_BT)


def assert_same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> None:
    for ours, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
