"""Styles far from those of training: some training pictures in black and white, as outlines, and with inverted figures.

No job trains on them and no setting is selected with them, so they show what a student keeps of its teacher away from the data
that it has learned from.
"""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import webdataset
from PIL import Image, ImageChops, ImageFilter, ImageOps
from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.images import decode_image
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.samples import image_bytes, is_held_out
from tinyclip_workers.data.shards import read_shards

EVERY = 5
"""One of so many training pictures is in the shards."""
WHITE = 247


def black_and_white(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


def outlined(image: Image.Image) -> Image.Image:
    """Return the gray picture at half strength under its outlines."""
    gray = image.convert("L")
    return Image.blend(gray, gray.filter(ImageFilter.CONTOUR), 0.5).convert("RGB")


def inverted(image: Image.Image) -> Image.Image:
    """Return the negative of what is not white: the background stays."""
    darkest = ImageChops.darker(ImageChops.darker(*image.split()[:2]), image.split()[2])
    background = darkest.point(lambda value: 255 if value >= WHITE else 0)
    return Image.composite(image, ImageOps.invert(image), background)


STYLES: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "black-and-white": black_and_white,
    "outlined": outlined,
    "inverted": inverted,
}


def distant_tasks(spec: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Return a zero-shot task for each style, and write their shards into the folder if it has none."""
    model = next(task for task in spec["evaluation"]["tasks"] if task["name"] == "style-subgroup")
    shards = {style: folder / f"{style}.tar" for style in STYLES}
    if not all(shard.exists() for shard in shards.values()):
        folder.mkdir(parents=True, exist_ok=True)
        _write(spec["data"]["train"]["shards"], spec["data"]["train"]["holdout"], shards)
    return [{**model, "name": f"distant-{style}", "shards": str(shard)} for style, shard in shards.items()]


def _write(train: str, holdout: float, shards: Mapping[str, Path]) -> None:
    samples = [sample for sample in read_shards(expand_shards(train), Skipped()) if not is_held_out(sample["__key__"], holdout)]
    for style, shard in shards.items():
        temporary = shard.with_suffix(".writing")
        with webdataset.TarWriter(str(temporary)) as writer:
            for sample in samples[::EVERY]:
                image = STYLES[style](decode_image(image_bytes(sample, ["png"])))
                label = json.dumps({"subgroup": json.loads(sample["json"])["subgroup"]})
                writer.write({"__key__": sample["__key__"], "png": _png(image), "json": label.encode()})
        temporary.rename(shard)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()
