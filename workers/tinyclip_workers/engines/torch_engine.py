"""The torch engine, on CPU or CUDA: the reference that other engines are compared with."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyclip_workers.engines.protocol import EngineReport
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.precision import precision_of
from tinyclip_workers.model.preprocessing import normalize
from tinyclip_workers.model.tokenizers import unknown_counter
from tinyclip_workers.model.towers import encode_text
from tinyclip_workers.types import Matrix, Pixels


class TorchEngine:
    """open_clip's model, or our own towers if blocks differ in size.

    With `bf16`, products of the image tower are in bf16; texts, whose embeddings are cached, stay exact.
    """

    def __init__(self, loaded: LoadedModel, device: torch.device, report: EngineReport, *, bf16: bool = False) -> None:
        self.name, self.report = report.engine, report
        self.embed_dim, self.image_size = loaded.layout.embed_dim, loaded.layout.image_size
        self.embedding_sizes = loaded.embedding_sizes
        self.logit_scale = float(loaded.model.logit_scale.detach().exp())
        self.unknown_tokens = unknown_counter(loaded.tokenizer)
        self._model = loaded.model.to(device).eval().requires_grad_(False)
        self._tokenize, self._colors, self._device = loaded.tokenizer, (loaded.image_mean, loaded.image_std), device
        self._precision = precision_of("bf16" if bf16 else "fp32", device)

    @torch.inference_mode()
    def encode_image(self, images_BSSC: Pixels) -> Matrix:
        pixels_BCSS = torch.from_numpy(images_BSSC).to(self._device).permute(0, 3, 1, 2)
        with self._precision.autocast():
            image_BE = self._model.encode_image(normalize(pixels_BCSS, *self._colors))
        return _normalized(image_BE)

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Matrix:
        return _normalized(encode_text(self._model, self._tokenize(list(texts))))


def _normalized(features_BE: Tensor) -> Matrix:
    matrix: Matrix = F.normalize(features_BE.float(), dim=-1).cpu().numpy()
    return matrix
