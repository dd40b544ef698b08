"""Mutated image files give pixels or UnreadableImage in little time, and never another exception."""

import contextlib
import io
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tinyclip_workers.data.crops import Crop
from tinyclip_workers.data.decoding import decode_crop, decode_square
from tinyclip_workers.data.image_input import BadImage, read_image
from tinyclip_workers.data.images import UnreadableImage, decode_image

from tests.workers.students import encoded, random_image

SIZE = 16
MAX_SECONDS = 5.0
"""Far more than any of these files takes on a busy machine."""


def seeds() -> list[bytes]:
    image, exif = random_image(3, (48, 40)), Image.Exif()
    exif[0x0112] = 6
    animated = io.BytesIO()
    image.save(animated, "GIF", save_all=True, append_images=[random_image(4, (48, 40))])
    return [
        encoded(image, "JPEG", exif=exif), encoded(image, "JPEG", progressive=True), encoded(image.convert("L"), "JPEG"),
        encoded(image.convert("CMYK"), "JPEG"), encoded(image), encoded(image.convert("P"), transparency=0),
        encoded(Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30) * 70)), encoded(image.convert("RGBA")),
        encoded(image, "WEBP"), encoded(image, "WEBP", lossless=True), animated.getvalue(), encoded(image, "TIFF"),
        encoded(image, "BMP"),
    ]  # fmt: skip


SEEDS = seeds()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid file with bytes changed, or with a part deleted, repeated, or taken from another file."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 64))
        match draw(st.sampled_from(["set", "cut", "double", "other", "end"])):
            case "set":
                data[at : at + 4] = draw(st.binary(min_size=1, max_size=4))
            case "cut":
                del data[at : at + length]
            case "double":
                data[at:at] = data[at : at + length]
            case "other":
                other = draw(st.sampled_from(SEEDS))
                data[at : at + length] = other[at : at + length]
            case "end":
                del data[at:]
    return bytes(data)


@pytest.mark.filterwarnings("ignore")  # PIL warns about what it ignores
@settings(max_examples=400, deadline=None)
@given(mutated())
def test_a_mutated_file_gives_pixels_or_unreadable_image(data: bytes) -> None:
    started = time.perf_counter()
    with contextlib.suppress(UnreadableImage):
        seen = decode_square(data, SIZE)
        assert (seen.shape, seen.dtype) == ((SIZE, SIZE, 3), np.uint8)
    with contextlib.suppress(UnreadableImage):
        seen = decode_crop(data, SIZE, lambda width, height: Crop(width // 3, height // 4, -(-width // 2), -(-height // 2)))
        assert (seen.shape, seen.dtype) == ((SIZE, SIZE, 3), np.uint8)
    with contextlib.suppress(UnreadableImage):
        assert decode_image(data).mode == "RGB"
    assert time.perf_counter() - started < MAX_SECONDS


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=100, deadline=None)
@given(st.one_of(mutated(), st.binary(max_size=200)))
def test_a_mutated_file_in_a_request_is_read_or_refused_with_the_remedy(data: bytes) -> None:
    refused = None
    try:
        assert read_image(data, 1_000_000, SIZE).shape == (SIZE, SIZE, 3)
    except BadImage as bad:
        refused = str(bad)
    assert refused is None or "send the bytes of a PNG, JPEG, WebP or GIF file" in refused
