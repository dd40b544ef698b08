"""Shards for `loader.py`: JPEGs of about one size, as WebDataset and as MDS."""

import io
import itertools
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tinyclip_workers.data.images import decode_image
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.shards import read_shard

QUALITY, SHARDS = 90, 8

Pictures = Iterator[tuple[bytes, str]]
"""JPEGs and captions."""


@dataclass(frozen=True)
class ShardFolder:
    """The shards that all loaders read."""

    folder: Path
    batch_size: int = 64

    @property
    def shards(self) -> list[str]:
        return sorted(map(str, self.folder.glob("*.tar")))

    @property
    def mds(self) -> str:
        return str(self.folder / "mds")

    @property
    def images(self) -> int:
        return int((self.folder / "images").read_text())


def write_shards(folder: Path, pictures: Pictures, images: int, *, mds: bool) -> dict[str, Any]:
    """Write that many images, as many to each of SHARDS tars, and return facts about them."""
    pairs = list(itertools.islice(pictures, images // SHARDS * SHARDS))
    each = len(pairs) // SHARDS
    for shard in range(SHARDS):
        write_tar(folder / f"pairs-{shard:06}.tar", pairs[shard * each : (shard + 1) * each], shard * each)
    (folder / "images").write_text(str(len(pairs)))
    if mds:
        write_mds(str(folder / "mds"), pairs)
    sizes = [Image.open(io.BytesIO(data)).size for data, _ in pairs]
    mean_bytes = round(sum(len(data) for data, _ in pairs) / len(pairs))
    return {"images": len(pairs), "mean_size": np.mean(sizes, axis=0).round().tolist(), "mean_bytes": mean_bytes}


def photos(source: str) -> list[tuple[Image.Image, str]]:
    """Return the photos and captions of the source; elongated ones are left out."""
    samples = [sample for url in expand_shards(source) for sample in read_shard(url)]
    pairs = [(decode_image(sample["jpg"]), sample["txt"].decode().strip()) for sample in samples]
    return [(image, caption) for image, caption in pairs if max(image.size) <= 2 * min(image.size)]


def upscaled(source: str, pixels: tuple[int, int]) -> Pictures:
    """Yield each photo scaled to the area, in its aspect ratio, again and again."""
    for image, caption in itertools.cycle(photos(source)):
        factor = (pixels[0] * pixels[1] / (image.width * image.height)) ** 0.5
        size = (round(image.width * factor), round(image.height * factor))
        yield encoded(image.resize(size, Image.Resampling.BICUBIC)), caption


def mosaics(source: str, pixels: tuple[int, int]) -> Pictures:
    """Yield photos side by side in their own resolution: as much detail in each pixel as in photos of that size."""
    pairs = itertools.cycle(photos(source))
    while True:
        canvas, top, caption = Image.new("RGB", pixels), 0, ""
        while top < pixels[1]:
            left, row = 0, 0
            while left < pixels[0]:
                image, caption = next(pairs)
                canvas.paste(image, (left, top))
                left, row = left + image.width, max(row, image.height)
            top += row
        yield encoded(canvas), caption


PICTURES = {"upscaled": upscaled, "mosaic": mosaics}


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def write_tar(path: Path, pairs: list[tuple[bytes, str]], first: int) -> None:
    with tarfile.open(path, "w") as tar:
        for number, (data, caption) in enumerate(pairs, first):
            for extension, content in (("jpg", data), ("txt", caption.encode())):
                header = tarfile.TarInfo(f"{number:08}.{extension}")
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))


def write_mds(folder: str, pairs: list[tuple[bytes, str]]) -> None:
    from streaming import MDSWriter  # not a dependency of the project

    with MDSWriter(out=folder, columns={"image": "bytes", "caption": "str"}) as writer:
        for data, caption in pairs:
            writer.write({"image": data, "caption": caption})
