"""Small shards of coloured squares, made in the test."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 230), "white": (250, 250, 250)}


def png(color: tuple[int, int, int], size: int = 32) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), color).save(file, "PNG")
    return file.getvalue()


def color_samples(count: int, *, start: int = 0) -> list[dict[str, Any]]:
    """`count` samples: the color's number under `cls` and `json.label`, its name in the caption."""
    samples = []
    for number in range(start, start + count):
        label = number % len(COLORS)
        name, (r, g, b) = list(COLORS.items())[label]
        shade = (max(0, r - number), max(0, g - number), max(0, b - number))
        samples.append(
            {
                "__key__": f"s{number:04d}",
                "png": png(shade),
                "txt": f"a {name} square {number}",
                "cls": str(label),
                "json": {"label": label, "name": name, "odd": bool(number % 2), "captions": [f"a {name} square", str(number)]},
            }
        )
    return samples


def write_shard(path: Path, samples: Iterable[dict[str, Any]]) -> str:
    """A WebDataset shard; values are bytes, text or JSON. Returns its path."""
    with tarfile.open(path, "w") as tar:
        for sample in samples:
            for name, value in sample.items():
                if name == "__key__":
                    continue
                data = value if isinstance(value, bytes) else value if isinstance(value, str) else json.dumps(value)
                data = data.encode() if isinstance(data, str) else data
                info = tarfile.TarInfo(f"{sample['__key__']}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return str(path)
