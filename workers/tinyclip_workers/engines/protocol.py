"""What the service knows of an engine.

Shapes: B batch, S image size, E embedding size.
"""

from collections.abc import Sequence
from typing import Protocol

from tinyclip_workers.engines.report import EngineReport
from tinyclip_workers.types import Matrix, Pixels


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
