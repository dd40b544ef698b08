"""Export to the files of a registry version, of any layout: `models import`, `local-dir:` teachers and replicas read them.

With an int8 token embedding the weights are a compact file (`model/files/weights.py`), which only TinyCLIP reads.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import save
from tinyclip.schemas import EmbeddingType, ExportOptions
from torch import Tensor

from tinyclip_workers.evaluation.embedding import embed_texts
from tinyclip_workers.exporting.check import torch_embeddings
from tinyclip_workers.exporting.embedding import state_with_embedding
from tinyclip_workers.exporting.samples import to_pixels
from tinyclip_workers.model.files.folders import COMPACT_FILE, OWN_WEIGHTS_FILE, WEIGHTS_FILES, LoadedModel, load_folder
from tinyclip_workers.runtime.addresses import ServiceAddress
from tinyclip_workers.types import Matrix
from tinyclip_workers.versions.writer import model_files


def export_tinyclip(loaded: LoadedModel, folder: Path, options: ExportOptions) -> None:
    """Write weights, layout, preprocessing, and the tokenizer if it is not CLIP's own."""
    weights = save(state_with_embedding(loaded, options.embedding), {"format": "pt"})
    colors = loaded.image_mean, loaded.image_std
    for name, content in model_files(loaded.layout, weights, *colors, None, loaded.tokenizer_source).items():
        is_compact = options.embedding is EmbeddingType.INT8 and name in (WEIGHTS_FILES[0], OWN_WEIGHTS_FILE)
        (folder / (COMPACT_FILE if is_compact else name)).write_bytes(content)


class TinyClipModel:
    """An exported folder, loaded as replicas do."""

    def __init__(self, folder: Path) -> None:
        self._loaded = load_folder(ServiceAddress(folder))

    def encode_pixels(self, pixels_BCSS: Tensor) -> Matrix:
        return torch_embeddings(self._loaded, pixels_BCSS, [])[0]

    def encode_images(self, images: Sequence[Image.Image]) -> Matrix:
        return self.encode_pixels(to_pixels(images, self._loaded.layout.image_size))

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        texts_BE: Matrix = embed_texts(self._loaded, texts).numpy()
        return texts_BE

    def tokenize(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        tokens_BL: npt.NDArray[np.int64] = self._loaded.tokenizer(list(texts)).numpy()
        return tokens_BL
