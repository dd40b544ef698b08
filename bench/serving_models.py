"""The model of `serving.py` in the layouts that the servers read: a published architecture with random weights."""

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
from tinyclip_workers.model.files.folders import load_folder
from tinyclip_workers.model.layouts import preset_layout
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.versions.writer import model_files

ARCHITECTURE = "TinyCLIP-ViT-8M-16-Text-3M"


def write_open_clip(folder: Path, images: Sequence[bytes]) -> Path:
    """Write the model with calibration images, as a job does, so that `auto` can choose among all engines."""
    layout = preset_layout(ARCHITECTURE)
    torch.manual_seed(0)
    state = CLIP(**open_clip_config(layout)).state_dict()
    folder.mkdir()
    for name, data in model_files(layout, save(state), OPENAI_MEAN, OPENAI_STD, None).items():
        (folder / name).write_bytes(data)
    squares = np.stack([decode_square(image, layout.image_size) for image in images])
    (folder / CALIBRATION_FILE).write_bytes(encode_calibration(squares))
    return folder


def write_hugging_face(model: Path, folder: Path) -> Path:
    """Write transformers' layout, with the preprocessing in the file that transformers 4 (infinity's) and 5 both read."""
    folder.mkdir()
    export_hf(load_folder(str(model)), folder)
    processor = folder / "processor_config.json"
    (folder / "preprocessor_config.json").write_text(json.dumps(json.loads(processor.read_text())["image_processor"]))
    processor.unlink()
    return folder
