"""Thumbnails of images by their places in shards."""

import gzip
import io
import json
from pathlib import Path

import pytest
from PIL import Image
from tinyclip.addresses import ARTIFACTS_ROOT, READABLE_ROOTS
from tinyclip_workers.data import thumbnails
from tinyclip_workers.data.shards import PlacedSample, read_placed
from tinyclip_workers.data.thumbnails import NoThumbnail, thumbnail_at
from tinyclip_workers.plan.diagnostics import Diagnostics
from tinyclip_workers.plan.samples import image_or_problem

from tests.workers.shards import color_samples, png, write_shard


@pytest.fixture
def shard(tmp_path: Path) -> str:
    samples = color_samples(6)
    samples[2]["png"] = png((0, 0, 255), 100)
    samples[3]["png"] = b"no image"
    return write_shard(tmp_path / "val.tar", samples)


def places(shard: str) -> list[PlacedSample]:
    with open(shard, "rb") as file:
        return list(read_placed(shard, file))


def jpeg_of(url: str, placed: PlacedSample, size: int = 32, key: str | None = None) -> Image.Image:
    key = placed.sample["__key__"] if key is None else key
    data = thumbnail_at(url, key, placed.start, placed.end - placed.start, ["jpg", "png"], size)
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("compressed", [False, True])
def test_an_image_is_found_at_its_place(shard: str, tmp_path: Path, compressed: bool) -> None:
    placed = places(shard)[2]
    if compressed:
        (tmp_path / "val.tar.gz").write_bytes(gzip.compress(Path(shard).read_bytes()))

    image = jpeg_of(f"{shard}.gz" if compressed else shard, placed)

    assert (image.format, image.size) == ("JPEG", (32, 32))
    red, green, blue = image.getpixel((16, 16))  # type: ignore[misc]
    assert blue > 200 > 50 > max(red, green)


def test_what_cannot_be_shown_has_a_reason(shard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, second, third, broken, *_ = places(shard)
    (tmp_path / "val.tar.gz").write_bytes(gzip.compress(Path(shard).read_bytes()))

    with pytest.raises(NoThumbnail, match="has no image"):
        jpeg_of(shard, broken)
    with pytest.raises(NoThumbnail, match="has changed"):
        jpeg_of(shard, second, key="other")
    with pytest.raises(NoThumbnail, match="cannot be read"):
        jpeg_of(f"{shard}.gone", second)
    with pytest.raises(NoThumbnail, match="no sample begins"):
        jpeg_of(f"{shard}.gz", second._replace(start=second.start + 1))
    with pytest.raises(NoThumbnail, match="it has"):
        jpeg_of(shard, second._replace(end=1 << 40))
    monkeypatch.setattr(thumbnails, "SKIPPED_BYTES", 100)
    with pytest.raises(NoThumbnail, match="behind 100 bytes"):
        jpeg_of(f"{shard}.gz", third)


def test_the_address_must_lie_in_the_data_roots(shard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ARTIFACTS_ROOT, str(tmp_path / "store"))
    monkeypatch.setenv(READABLE_ROOTS, '["/elsewhere"]')
    placed = places(shard)[0]
    question = {
        "url": shard, "key": placed.sample["__key__"], "start": placed.start, "length": placed.end - placed.start,
        "image_key": ["png"], "size": 32,
    }  # fmt: skip

    refused = image_or_problem(question, Diagnostics())

    assert "missing" in refused
    monkeypatch.setenv(READABLE_ROOTS, json.dumps([str(tmp_path)]))
    assert "jpeg" in image_or_problem(question, Diagnostics())
