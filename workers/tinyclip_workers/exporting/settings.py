"""Files that an exported graph needs in addition: preprocessing of images, tokenizer, and the scale of its cosines."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from tinyclip_workers.exporting.formats.open_clip import preprocess_cfg
from tinyclip_workers.exporting.tokenizer import TOKENIZER_FILE, write_tokenizer
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.versions.writer import json_bytes

SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class Settings:
    """`settings.json` and `tokenizer.json` of an exported folder."""

    transform: Callable[[Image.Image], Tensor]
    """Converts an image to normalized pixels (3, S, S)."""
    mean: list[float]
    std: list[float]
    tokenizer: Any

    def pixels(self, image: Image.Image) -> Tensor:
        """Return the pixels before normalization, as uint8."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return ((self.transform(image) * std + mean) * 255).round().to(torch.uint8)

    def tokenize(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the tokens (B, L), padded to the longest text."""
        return np.array([encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))], np.int64)


def write_settings(loaded: LoadedModel, folder: Path) -> None:
    """Write both files. `preprocess` is a `preprocess_cfg` of open_clip."""
    document = {
        "preprocess": preprocess_cfg(loaded),
        "logit_scale": float(loaded.model.logit_scale.detach().exp()),
        "embed_dim": loaded.layout.embed_dim,
        "context_length": loaded.layout.context_length,
    }
    (folder / SETTINGS_FILE).write_bytes(json_bytes(document))
    write_tokenizer(folder, loaded)


def read_settings(folder: Path) -> Settings:
    document = json.loads((folder / SETTINGS_FILE).read_text("utf-8"))
    preprocess = document["preprocess"]
    return Settings(
        transform=image_transform_v2(PreprocessCfg(**preprocess), is_train=False),
        mean=preprocess["mean"],
        std=preprocess["std"],

        tokenizer=Tokenizer.from_file(str(folder / TOKENIZER_FILE)),
    )
