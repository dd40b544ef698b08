"""Shapes with captions in two languages, English and a made-up one, for tests of several languages."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.workers.shapes_data import COLORS, SHAPES, add_file, draw_shape

LANGUAGES = ["en", "xx"]
Captions = Callable[[int, list[str]], Any]
"""Returns the captions of a sample by its number and its English captions."""


def translated(text: str) -> str:
    """The other language writes words from their ends."""
    return " ".join(word[::-1] for word in text.split(" "))


def both(number: int, english: list[str]) -> dict[str, list[str]]:
    return {"en": english, "xx": [translated(text) for text in english]}


def write_translated(folder: Path, captions: Captions = both, *, shards: int = 2, pairs: int = 48, name: str = "train") -> str:
    """Write `folder/name-00000N.tar`; returns a glob of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with tarfile.open(folder / f"{name}-{shard:06d}.tar", "w") as tar:
            for number in range(shard * pairs, (shard + 1) * pairs):
                color, shape = list(COLORS)[number % len(COLORS)], SHAPES[number // len(COLORS) % len(SHAPES)]
                english = [f"a {color} {shape}", f"a {shape} in {color}"]
                image = io.BytesIO()
                draw_shape(color, shape, 32, shift=number % 5).save(image, "png")
                document = {"number": number, "concept": f"{color} {shape}", "captions": captions(number, english)}
                add_file(tar, f"{name}-{number:04d}.png", image.getvalue())
                add_file(tar, f"{name}-{number:04d}.json", json.dumps(document).encode())
    return str(folder / f"{name}-*.tar")


def write_file(path: Path, pairs: int = 96, name: str = "train") -> str:
    """Write a file of the captions in the other language; returns its path."""
    lines = []
    for number in range(pairs):
        color, shape = list(COLORS)[number % len(COLORS)], SHAPES[number // len(COLORS) % len(SHAPES)]
        texts = [translated(f"a {color} {shape}"), translated(f"a {shape} in {color}")]
        lines.append(json.dumps({"key": f"{name}-{number:04d}", "captions": {"xx": texts}}))
    path.write_text("\n".join(lines) + "\n")
    return str(path)
