"""A model small enough to make in every test, and a folder of it."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from open_clip.model import CLIP
from safetensors.torch import save
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.layouts import Layout
from tinyclip.schemas.spec import ImageTower, StudentSpec, TextTower
from tinyclip_workers.model.architecture import build_model, open_clip_config, resolve_layout
from tinyclip_workers.model.files.weights import save_compact
from torch import Tensor

TINY = StudentSpec(
    embed_dim=16,
    image=ImageTower(layers=(1, 1, 1, 1), width=4, head_width=32, image_size=32),
    text=TextTower(layers=2, width=16, heads=2, context_length=16),
)


def tiny_layout() -> Layout:
    return resolve_layout(TINY, None)


def tiny_model(seed: int = 0, layout: Layout | None = None) -> CLIP:
    torch.manual_seed(seed)
    return build_model(layout or tiny_layout()).eval()


def write_weights(store: ArtifactsStore, path: str, state: Mapping[str, Tensor]) -> None:
    """Write a state dict with every name and type that it has."""
    store.write_bytes(path, save({name: tensor.contiguous() for name, tensor in state.items()}))


def write_folder(path: Path, model: CLIP, layout: Layout, *, used_token_ids: list[int] | None = None) -> Path:
    """Write a folder in open_clip's layout; with `used_token_ids` its weights are compact."""
    store = ArtifactsStore(str(path))
    if used_token_ids is None:
        write_weights(store, "open_clip_model.safetensors", model.state_dict())
    else:
        save_compact(store, "compact.safetensors", model.state_dict(), used_token_ids)
    config = {"model_cfg": open_clip_config(layout), "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}}
    store.write_bytes("open_clip_config.json", json.dumps(config).encode())
    return path
