"""The model of `serving.py` in the layouts that the servers read: random weights of a published architecture."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from open_clip import CLIP
from safetensors.torch import save
from tinyclip_workers.data.decoding import decode_square
from tinyclip_workers.engines.calibration import CALIBRATION_FILE, encode_calibration
from tinyclip_workers.exporting.formats.transformers import export_hf
from tinyclip_workers.model.architecture import open_clip_config
from tinyclip_workers.model.folders import load_folder
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.model.presets import preset_layout
from tinyclip_workers.versions.writer import model_files

ARCHITECTURE = "TinyCLIP-ViT-8M-16-Text-3M"


def write_open_clip(folder: Path, pictures: Sequence[bytes]) -> Path:
    """With calibration pictures, as a job leaves them: `auto` has all engines to choose from."""
    layout = preset_layout(ARCHITECTURE)
    torch.manual_seed(0)
    state = CLIP(**open_clip_config(layout)).state_dict()
    folder.mkdir()
    for name, data in model_files(layout, save(state), OPENAI_MEAN, OPENAI_STD, None).items():
        (folder / name).write_bytes(data)
    squares = np.stack([decode_square(picture, layout.image.image_size) for picture in pictures])
    (folder / CALIBRATION_FILE).write_bytes(encode_calibration(squares))
    return folder


def write_hugging_face(model: Path, folder: Path) -> Path:
    """Preprocessing in the file where transformers 4, which infinity has, looks for it; 5 reads it there as well."""
    folder.mkdir()
    export_hf(load_folder(str(model)), folder)
    told = folder / "processor_config.json"
    (folder / "preprocessor_config.json").write_text(json.dumps(json.loads(told.read_text())["image_processor"]))
    told.unlink()
    return folder
