"""One student of each kind that is served: a ViT with QuickGELU, a ResNet with GELU, and a folded model."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tinyclip.schemas.layouts import Layout
from tinyclip_workers.model.architecture import build_model, open_clip_config
from tinyclip_workers.model.masked import MaskedTowers
from tinyclip_workers.model.sparsity import Constraint
from tinyclip_workers.model.towers import Clip

from tests.workers.auto_stages import TEACHER
from tests.workers.models import tiny_layout
from tests.workers.students import MEAN, STD, random_image

KINDS = ("vit", "resnet", "folded")


def write_kind(folder: Path, kind: str) -> Path:
    """Write the version folder of a random student, as a job does."""
    torch.manual_seed(5)
    layout = {"vit": TEACHER.model_copy(update={"quick_gelu": True}), "resnet": tiny_layout()}.get(kind)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    folder.mkdir(parents=True, exist_ok=True)
    if layout is None:
        student = folded(TEACHER)
        save_file(student.state_dict(), folder / "model.safetensors")
        (folder / "preprocess.json").write_text(json.dumps(preprocess))
        (folder / "layout.json").write_text(student.layout.model_dump_json())
        return folder
    save_file(build_model(layout).state_dict(), folder / "open_clip_model.safetensors")
    (folder / "layout.json").write_text(layout.model_dump_json())
    config = {"model_cfg": open_clip_config(layout), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def folded(teacher: Layout) -> Clip:
    """Fold a teacher under random masks: blocks of different sizes, some without heads or MLP."""
    full = Clip(teacher)
    full.load_state_dict(build_model(teacher).state_dict())
    towers = MaskedTowers(full, teacher, ("image", "text"), Constraint(0.0, 0.5, 0))
    with torch.no_grad():
        for masks in towers.tower_masks().values():
            for loga in masks.loga().values():
                loga.uniform_(-4, 3)
    return towers.folded_model().eval()


def random_squares(count: int, size: int) -> np.ndarray:
    """Return (count, size, size, 3) uint8."""
    return np.stack([np.asarray(random_image(seed, (size, size))) for seed in range(count)])
