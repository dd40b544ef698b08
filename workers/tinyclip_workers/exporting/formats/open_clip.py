"""Export to open_clip: `create_model_and_transforms("local-dir:…")` loads the folder as it is.

The folder of a uniform version already has this format; the export contains only the files that open_clip uses.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from tinyclip.schemas import ExportOptions
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from tinyclip_workers.exporting.check import BATCH
from tinyclip_workers.exporting.embedding import state_with_embedding
from tinyclip_workers.model.architecture import open_clip_config
from tinyclip_workers.model.files.folders import CONFIG_FILE, WEIGHTS_FILES, LoadedModel
from tinyclip_workers.model.tokenizers import config_of_tokenizer
from tinyclip_workers.types import Matrix
from tinyclip_workers.versions.writer import json_bytes


def export_open_clip(loaded: LoadedModel, folder: Path, options: ExportOptions) -> None:
    """Write configuration, weights, and the tokenizer if it is not CLIP's own."""
    model_cfg, source = open_clip_config(loaded.layout), loaded.tokenizer_source
    model_cfg["text_cfg"] |= config_of_tokenizer(source)
    (folder / CONFIG_FILE).write_bytes(json_bytes({"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg(loaded)}))
    for name, content in (source.files if source is not None else {}).items():
        (folder / name).write_bytes(content)
    save_file(state_with_embedding(loaded, options.embedding), folder / WEIGHTS_FILES[0], {"format": "pt"})


def preprocess_cfg(loaded: LoadedModel) -> dict[str, Any]:
    """Return the image preprocessing as open_clip's `preprocess_cfg`."""
    size, mean, std = loaded.layout.image_size, list(loaded.image_mean), list(loaded.image_std)
    return {
        "size": [size, size], "mode": "RGB", "mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "shortest",
    }


class OpenClipModel:
    """An exported folder, loaded as open_clip documents."""

    def __init__(self, folder: Path) -> None:
        name = f"local-dir:{folder}"
        model, _, self._preprocess = open_clip.create_model_and_transforms(name)
        self._model, self._tokenizer = model.eval(), open_clip.get_tokenizer(name)

    def encode_pixels(self, pixels_BCSS: Tensor) -> Matrix:
        return self.encode_images([to_pil_image(pixels_CSS) for pixels_CSS in pixels_BCSS])  # already of the model's size

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> Matrix:
        parts = []
        for start in range(0, len(images), BATCH):
            batch_BCSS = torch.stack([self._preprocess(image) for image in images[start : start + BATCH]])
            parts.append(self._model.encode_image(batch_BCSS, normalize=True))
        images_BE: Matrix = torch.cat(parts).numpy()
        return images_BE

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        texts_BE: Matrix = F.normalize(self._model.encode_text(self._tokenizer(list(texts))), dim=-1).numpy()
        return texts_BE

    def tokenize(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        tokens_BL: npt.NDArray[np.int64] = self._tokenizer(list(texts)).numpy()
        return tokens_BL
