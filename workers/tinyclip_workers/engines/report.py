"""Which engine serves and why, as `GET {endpoint}/healthz` shows it."""

from tinyclip.schemas import Response


class EngineTrial(Response):
    """One engine on this replica's hardware."""

    engine: str
    images_per_second: float | None = None
    """At batch 8; null where it was not timed."""
    cosine: float | None = None
    """Mean over the pictures, to torch in fp32; null where it was not compared."""
    refused: str = ""
    """Why it could not be chosen; empty where it could."""


class EngineReport(Response):
    engine: str
    """What serves."""
    asked: str
    """`auto`, or the engine by name."""
    reason: str
    device: str
    threads: int
    min_cosine: float | None = None
    pictures: int = 0
    """Of the version, that engines were compared on; int8 was calibrated on others. 0: exact engines were compared on noise."""
    batch: int | None = None
    """Pictures computed together at most: more do not pay on this hardware. Null where nobody has measured it."""
    trials: list[EngineTrial] = []
