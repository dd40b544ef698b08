"""A tiny image-text data set that a small model can learn: coloured shapes, made where a test needs them."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

COLORS = {"red": "#d02020", "green": "#20a030", "blue": "#2040d0", "yellow": "#e0c010", "black": "#101010", "violet": "#8030b0"}
SHAPES = ("square", "circle", "triangle", "bar")


def write_shards(folder: Path, *, shards: int = 2, pairs: int = 48, size: int = 32, name: str = "train") -> str:
    """Write `folder/name-00000N.tar` with images, captions and JSON labels; returns a glob of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with tarfile.open(folder / f"{name}-{shard:06d}.tar", "w") as tar:
            for index in range(pairs):
                _add_pair(tar, f"{name}-{shard}-{index:04d}", shard * pairs + index, size)
    return str(folder / f"{name}-*.tar")


def _add_pair(tar: tarfile.TarFile, key: str, number: int, size: int) -> None:
    color, shape = list(COLORS)[number % len(COLORS)], SHAPES[(number // len(COLORS)) % len(SHAPES)]
    document: dict[str, Any] = {
        "color": number % len(COLORS),
        "shape": (number // len(COLORS)) % len(SHAPES),
        "concept": f"{color} {shape}",
        "captions": [f"a {color} {shape}", f"a {shape} in {color}"],
    }
    image = io.BytesIO()
    draw_shape(color, shape, size, shift=number % 5).save(image, "png")
    add_file(tar, f"{key}.png", image.getvalue())
    add_file(tar, f"{key}.txt", f"a {color} {shape}".encode())
    add_file(tar, f"{key}.json", json.dumps(document).encode())


def draw_shape(color: str, shape: str, size: int, shift: int = 0) -> Image.Image:
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    low, high = size // 5 + shift, size * 3 // 5 + shift
    if shape == "square":
        draw.rectangle((low, low, high, high), fill=COLORS[color])
    elif shape == "circle":
        draw.ellipse((low, low, high, high), fill=COLORS[color])
    elif shape == "triangle":
        draw.polygon([(low, high), (high, high), ((low + high) // 2, low)], fill=COLORS[color])
    else:
        draw.rectangle((low, (low + high) // 2, high, (low + high) // 2 + size // 8), fill=COLORS[color])
    return image


def add_file(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
