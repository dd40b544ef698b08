"""Shards of images that differ from each other, with captions that describe them, and images that are spoilt in some way."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.workers.shards import write_shard

WORDS = [
    "harbour", "castle", "meadow", "violin", "glacier", "lantern", "orchard", "bicycle", "pelican", "canyon", "teapot",
    "windmill", "tractor", "cactus", "lighthouse", "blanket", "sparrow", "pumpkin", "fountain", "ladder",
]  # fmt: skip


def picture(seed: int, size: int = 48) -> Image.Image:
    """An image with large and small structure, unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    noise = rng.integers(-12, 13, (size, size, 3))
    return Image.fromarray((np.asarray(coarse).astype(int) + noise).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def caption(number: int) -> str:
    """A sentence of its own for each number."""
    first, second, third, fourth = np.random.default_rng(number).choice(WORDS, 4, replace=False)
    return f"{first} and {second} with {number} of them beside {third} near {fourth}"


def pairs(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Healthy samples."""
    return [
        {"__key__": f"p{n:05d}", "png": encoded(picture(n)), "txt": caption(n), "json": {"caption": caption(n), "id": n}}
        for n in range(start, start + count)
    ]


def shards_of(folder: Path, samples: Sequence[dict[str, Any]], shards: int = 2) -> str:
    """Write samples in their order into shards; return their pattern."""
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(samples) // shards)
    for shard in range(shards):
        write_shard(folder / f"{shard:06d}.tar", samples[shard * size : (shard + 1) * size])
    return str(folder / "*.tar")
