"""The protocol that every engine implements, and the report on how it was chosen, as `GET {endpoint}/healthz` shows it.

Shapes: B batch, S image size, E embedding size.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from tinyclip.schemas import Response

from tinyclip_workers.types import Matrix, Pixels


class EngineTrial(Response):
    """Measurements of one engine on this replica's hardware."""

    engine: str
    images_per_second: float | None = None
    """At batch 8; None if it was not timed."""
    cosine: float | None = None
    """Mean cosine to torch in fp32 over the comparison images; None if it was not compared."""
    refused: str = ""
    """Why the engine cannot be chosen; empty if it can."""


class EngineReport(Response):
    """The engine that serves, and why."""

    engine: str
    """The engine that serves."""
    asked: str
    """The engine that the deployment asks for: `auto` or a name."""
    reason: str
    device: str
    threads: int
    min_cosine: float | None = None
    pictures: int = 0
    """The version's images that engines were compared on; int8 is calibrated on others. 0: exact engines, compared on noise."""
    batch: int | None = None
    """The most images computed together: larger batches do not raise the rate on this hardware. None if it was not measured."""
    trials: list[EngineTrial] = []


class Engine(Protocol):
    """A loaded model. Its methods block; they are called from worker threads, `encode_*` by one thread at a time."""

    name: str
    embed_dim: int
    embedding_sizes: tuple[int, ...]
    """Sizes that the model's embeddings may be cut to, the last of which is all; empty if it was not trained for any."""
    image_size: int
    """S: side of the squares that `decoding.decode_square` makes for it."""
    logit_scale: float
    """The model's own similarity multiplier (inverse temperature)."""
    report: EngineReport
    unknown_tokens: Callable[[str], int] | None
    """Counts the tokens of a text that a reduced vocabulary does not have, in any thread; None: the vocabulary is whole."""

    def encode_image(self, images_BSSC: Pixels) -> Matrix:
        """Return the L2-normalised embeddings (B, E) of uint8 RGB squares (B, S, S, 3)."""
        ...

    def encode_text(self, texts: Sequence[str]) -> Matrix:
        """Return the L2-normalised embeddings (B, E) of texts; those longer than the context are truncated."""
        ...
