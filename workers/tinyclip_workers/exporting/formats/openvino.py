"""Export to OpenVINO IR, in fp32 or with the image tower in int8.

    image.xml, .bin   images (batch, S, S, 3) uint8, RGB -> embeddings (batch, E), of length 1; the graph normalizes colors
    text.xml, .bin    tokens (batch, tokens) int64       -> embeddings (batch, E), of length 1

Shapes: B batch, S image size, E embedding size.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tinyclip.schemas import ExportOptions
from torch import Tensor

from tinyclip_workers.engines.openvino_engine import (
    CompiledTower,
    convert_image_tower,
    convert_text_tower,
    quantize_image_tower,
    save_model,
)
from tinyclip_workers.exporting.check import BATCH
from tinyclip_workers.exporting.embedding import towers_with_embedding
from tinyclip_workers.exporting.samples import Samples, to_pixels
from tinyclip_workers.exporting.settings import read_settings, write_settings
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.types import Matrix

IMAGE, TEXT = "image.xml", "text.xml"


def export_openvino(loaded: LoadedModel, folder: Path, samples: Samples, options: ExportOptions) -> int:
    """Write both towers, settings and tokenizer; return the number of images that int8 was calibrated with.

    The blocks of the text tower stay in fp32: texts truncated to their length are cheap, and int8 would gain little.
    """
    image, calibrated = convert_image_tower(loaded), 0
    if options.int8:
        images_BSSC = to_pixels(samples.calibration, loaded.layout.image_size).permute(0, 2, 3, 1).contiguous().numpy()
        image = quantize_image_tower(image, images_BSSC, transformer=loaded.layout.is_vit)
        calibrated = len(images_BSSC)
    save_model(image, folder / IMAGE)
    save_model(convert_text_tower(loaded, towers_with_embedding(loaded, options.embedding)), folder / TEXT)
    write_settings(loaded, folder)
    return calibrated


class OpenVinoModel:
    """An exported folder, compiled for this CPU."""

    def __init__(self, folder: Path) -> None:
        threads = torch.get_num_threads()
        self._image, self._text = (CompiledTower(folder / name, threads=threads) for name in (IMAGE, TEXT))
        self._settings = read_settings(folder)

    def encode_pixels(self, pixels_BCSS: Tensor) -> Matrix:
        batches = pixels_BCSS.permute(0, 2, 3, 1).contiguous().split(BATCH)
        return np.concatenate([self._image(batch.numpy()) for batch in batches])

    def encode_images(self, images: Sequence[Image.Image]) -> Matrix:
        return self.encode_pixels(torch.stack([self._settings.pixels(image) for image in images]))

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        return self._text(self.tokenize(texts))

    def tokenize(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        return self._settings.tokenize(texts)
