"""The model of `serving.py` in the layouts that the servers read: random weights of a published architecture."""

from pathlib import Path

import torch
from open_clip import CLIP
from safetensors.torch import save
from tinyclip_workers.architecture import open_clip_config
from tinyclip_workers.export import model_files
from tinyclip_workers.export_hf import export_hf
from tinyclip_workers.images import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.model_folder import load_folder
from tinyclip_workers.presets import preset_layout

ARCHITECTURE = "TinyCLIP-ViT-8M-16-Text-3M"


def write_open_clip(folder: Path) -> Path:
    layout = preset_layout(ARCHITECTURE)
    torch.manual_seed(0)
    state = CLIP(**open_clip_config(layout)).state_dict()
    folder.mkdir()
    for name, data in model_files(layout, save(state), OPENAI_MEAN, OPENAI_STD, None).items():
        (folder / name).write_bytes(data)
    return folder


def write_hugging_face(model: Path, folder: Path) -> Path:
    folder.mkdir()
    export_hf(load_folder(str(model)), folder)
    return folder
