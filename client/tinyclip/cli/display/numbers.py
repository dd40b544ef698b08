"""Numbers formatted for people."""

from collections.abc import Sequence

MISSING = "–"
"""Stands for a number that is not known."""

_BARS = "▁▂▃▄▅▆▇█"


def count(value: float) -> str:
    """Format a count: `61.2M`, `3.4k`, `17`."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def size(value: float) -> str:
    """Format bytes: `1.5 GiB`, `23 MiB`, `0 B`."""
    for unit_size, unit in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= unit_size:
            return f"{value / unit_size:.3g} {unit}"
    return f"{value:.0f} B"


def with_embedding(text: float, without: float, about: str = "") -> str:
    """Format the parameters of a text tower, and in brackets those of them that are its token embedding: `10.9M (9.49M)`."""
    return f"{about}{count(text)} ({about}{count(text - without)})"


def duration(seconds: float | None) -> str:
    """Format a duration: `1h02m`, `3m20s`, `12s`; `?` for None."""
    if seconds is None:
        return "?"
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


def percent(share: float) -> str:
    """Format a share in percent, without the sign: `65.3`."""
    return f"{100 * share:.1f}"


def number(value: object) -> str:
    """Format a metric with four digits; whole numbers as they are."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def curve(values: Sequence[float], width: int = 24) -> str:
    """Draw a series over its range: `▇▅▃▂▁`. Each sign shows the value of its segment that is furthest from the mean of all."""
    mean, least, most = sum(values) / len(values), min(values), max(values)
    size = min(width, len(values))
    segments = [values[at * len(values) // size : (at + 1) * len(values) // size] for at in range(size)]
    shown = [max(segment, key=lambda value: abs(value - mean)) for segment in segments]
    span = most - least or 1.0
    return "".join(_BARS[min(len(_BARS) - 1, int((value - least) / span * len(_BARS)))] for value in shown)


def bars(counts: Sequence[int]) -> str:
    """Draw counts from zero: `▁▃█▂ `; a space stands for none."""
    most = max(counts, default=0)
    return "".join(_BARS[-(-value * len(_BARS) // most) - 1] if value > 0 else " " for value in counts)
