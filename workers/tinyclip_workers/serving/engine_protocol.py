"""What the service knows of an engine.

Shapes: B batch, S image size, E embedding size.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tinyclip_workers.images import Pixels
from tinyclip_workers.serving.engine_report import EngineReport

Matrix = npt.NDArray[np.float32]


class Engine(Protocol):
    """A loaded model. Its methods block and are called from worker threads, `encode_*` from one at a time."""

    name: str
    embed_dim: int
    image_size: int
    """S: side of the squares that `decoding.decode_square` makes for it."""
    logit_scale: float
    """The model's own similarity multiplier (inverse temperature)."""
    report: EngineReport
    """Why it is this engine."""

    def encode_image(self, images_BSSC: Pixels) -> Matrix:
        """(B, E), L2-normalised, of uint8 RGB squares (B, S, S, 3)."""
        ...

    def encode_text(self, texts: Sequence[str]) -> Matrix:
        """(B, E), L2-normalised; texts longer than the context are cut."""
        ...
