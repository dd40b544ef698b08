"""The fast decoder gives the pixels of the evaluation transform, for every kind of file."""

import io
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from tinyclip_workers.data import images
from tinyclip_workers.data.decoding import decode_square
from tinyclip_workers.data.eval_transform import eval_transform
from tinyclip_workers.data.images import MAX_PIXELS, UnreadableImage, decode_image
from tinyclip_workers.types import Pixels

from tests.workers.students import encoded, random_image

RED, WHITE = (255, 0, 0), (255, 255, 255)
SIZE = 32


@cache
def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Large areas and fine structure, as in photos."""
    rng = np.random.default_rng(seed)
    grids = [Image.fromarray(rng.integers(0, 256, (k, k, 3), dtype=np.uint8)) for k in (4, 16, 64)]
    layers = [np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) for grid in grids]
    return Image.fromarray(np.average(np.stack(layers).astype(float), axis=0, weights=[2, 1, 1]).astype(np.uint8))


def evaluation_transform(data: bytes, size: int = SIZE) -> Pixels:
    return eval_transform(size)(decode_image(data)).permute(1, 2, 0).numpy()


def difference(data: bytes, size: int = SIZE) -> Pixels:
    return np.abs(decode_square(data, size).astype(int) - evaluation_transform(data, size))


class TestEqualToTheEvaluationTransform:
    @pytest.mark.parametrize("size", [(50, 40), (33, 90), (32, 32), (20, 13), (131, 77), (1, 1), (1, 9), (300, 299)])
    @pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP"])
    def test_formats_that_pil_decodes(self, size: tuple[int, int], format: str) -> None:
        assert difference(encoded(photo(*size), format)).max() <= 2

    @pytest.mark.parametrize("size", [(50, 40), (63, 90), (20, 13), (64, 64), (1, 1), (17, 8)])
    @pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
    def test_small_jpegs_of_any_subsampling(self, size: tuple[int, int], subsampling: str) -> None:
        assert difference(encoded(photo(*size), "JPEG", quality=90, subsampling=subsampling)).max() <= 2

    @pytest.mark.parametrize("size", [(500, 375), (375, 500), (641, 479), (1600, 1200), (2000, 130)])
    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:4:4"}], ids=str)
    def test_large_jpegs_scaled_while_decoding(self, size: tuple[int, int], options: dict[str, Any]) -> None:
        found = difference(encoded(photo(*size), "JPEG", quality=85, **options))

        assert found.mean() < 1
        assert found.max() <= 6

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize(("format", "size"), [("JPEG", (60, 40)), ("JPEG", (400, 301)), ("WEBP", (60, 41)), ("PNG", (6, 4))])
    def test_images_of_any_exif_orientation(self, orientation: int, format: str, size: tuple[int, int]) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(photo(*size), format, exif=exif)

        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        expected = eval_transform(SIZE)(upright).permute(1, 2, 0).numpy().astype(int)
        assert np.abs(decode_square(data, SIZE) - expected).max() <= 6

    def test_grey_jpegs_stay_grey(self) -> None:
        data = encoded(photo(400, 300).convert("L"), "JPEG")

        assert difference(data).max() <= 6
        assert np.ptp(decode_square(data, SIZE), axis=2).max() == 0

    @pytest.mark.parametrize("size", [(30_000, 100), (100, 30_000)])
    def test_very_elongated_images_are_cropped_to_their_centre(self, size: tuple[int, int]) -> None:
        image = Image.new("L", size, 0)
        middle = [side // 2 for side in size]
        image.paste(255, (middle[0], 0, size[0], size[1]) if size[0] > size[1] else (0, middle[1], size[0], size[1]))

        seen = decode_square(encoded(image), SIZE)[..., 0]

        dark, light = (seen[:, :12], seen[:, 20:]) if size[0] > size[1] else (seen[:12], seen[20:])
        assert (dark.max(), light.min()) == (0, 255)
        np.testing.assert_array_equal(seen, evaluation_transform(encoded(image))[..., 0])


class TestUnusualFiles:
    def test_a_cmyk_jpeg_is_converted(self) -> None:
        red, green, blue = decode_square(encoded(Image.new("CMYK", (40, 40), (0, 255, 255, 0)), "JPEG"), SIZE)[16, 16]

        assert red > 200
        assert max(green, blue) < 60

    def test_transparency_is_laid_on_white(self) -> None:
        image = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
        image.paste((*RED, 255), (0, 0, 8, 8))

        seen = decode_square(encoded(image), SIZE)

        assert (tuple(seen[4, 4]), tuple(seen[20, 20])) == (RED, WHITE)

    def test_a_transparent_palette_colour_is_laid_on_white(self) -> None:
        image = Image.new("P", (SIZE, SIZE), 0)
        image.putpalette([0, 0, 0, *RED])
        image.paste(1, (0, 0, 8, 8))

        seen = decode_square(encoded(image, transparency=0), SIZE)

        assert (tuple(seen[4, 4]), tuple(seen[20, 20])) == (RED, WHITE)

    @pytest.mark.parametrize("format", ["PNG", "TIFF"])
    def test_sixteen_bit_grey_is_scaled_to_eight_bits(self, format: str) -> None:
        ramp = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)

        seen = decode_square(encoded(Image.fromarray(ramp), format), SIZE)

        np.testing.assert_allclose(seen[..., 0], ramp / 257, atol=0.51)

    def test_float_grey_is_scaled_to_eight_bits(self) -> None:
        ramp = np.linspace(0, 1, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)

        for top in (1, 255):
            seen = decode_square(encoded(Image.fromarray(ramp * top), "TIFF"), SIZE)
            np.testing.assert_allclose(seen[..., 0], ramp * 255, atol=0.51)

    @pytest.mark.parametrize("mode", ["1", "L", "P", "I;16"])
    def test_other_pixel_modes_are_converted(self, mode: str) -> None:
        assert decode_square(encoded(Image.new(mode, (8, 8))), SIZE).max() == 0

    @pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
    def test_the_first_frame_is_used(self, format: str) -> None:
        first, *others = (Image.new("RGB", (40, 40), colour) for colour in ("red", "blue", "lime"))
        data = encoded(first, format, save_all=True, append_images=others, **({"lossless": True} if format == "WEBP" else {}))

        assert tuple(decode_square(data, SIZE)[16, 16]) == RED

    def test_a_single_pixel_is_enlarged(self) -> None:
        assert (decode_square(encoded(Image.new("RGB", (1, 1), "red")), SIZE) == RED).all()

    @pytest.mark.parametrize("size", [(1_000_000, 1), (1, 1_000_000)])
    def test_lines_are_cropped_before_they_are_enlarged(self, size: tuple[int, int]) -> None:
        assert (decode_square(encoded(Image.new("RGB", size, "red")), SIZE) == RED).all()

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
    def test_broken_exif_is_ignored(self) -> None:
        data = encoded(photo(60, 40), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff no directory")

        assert difference(data).max() <= 2


class TestRefused:
    @pytest.mark.parametrize(
        "data", [b"", b"text", b"%PDF-1.7", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF0000WEBPVP8 "]
    )
    def test_bytes_that_are_not_an_image_are_refused(self, data: bytes) -> None:
        with pytest.raises(UnreadableImage, match="not a readable image"):
            decode_square(data, SIZE)

    @pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
    @pytest.mark.parametrize("left", [0.1, 0.5, 0.9])
    def test_a_truncated_file_is_refused(self, format: str, left: float) -> None:
        data = encoded(photo(300, 300), format)

        with pytest.raises(UnreadableImage, match="not a readable image"):
            decode_square(data[: int(len(data) * left)], SIZE)

    @pytest.mark.parametrize("format", ["JPEG", "PNG"])
    def test_an_image_of_too_many_pixels_is_refused(self, format: str) -> None:
        data = encoded(Image.new("L", (8001, 8001)), format)
        assert MAX_PIXELS < 8001 * 8001

        with pytest.raises(UnreadableImage, match=r"8001x8001 pixels are more than 64,000,000; scale"):
            decode_square(data, SIZE)

    def test_a_jpeg_with_too_many_scans_is_refused(self) -> None:
        data = encoded(photo(500, 500).resize((2000, 2000)), "JPEG", progressive=True)
        scan = data[data.rindex(b"\xff\xda") : -2]

        with pytest.raises(UnreadableImage, match=r"scans of 2000x2000 pixels are too many; save it as a baseline JPEG"):
            decode_square(data[:-2] + scan[:14] * 400 + b"\xff\xd9", SIZE)


def ico_of(png: bytes) -> bytes:
    """An ICO file of one image, 32x32 by its directory."""
    return b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 32, 32, 0, 0, 1, 32, len(png), 22) + png


def tiff_of_one_tile(side: int) -> bytes:
    """A TIFF of 64x64 pixels in one tile of side x side, deflated."""
    tile = zlib.compress(bytes(3 * side * side))
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 2, 277: 3, 322: side, 323: side, 324: 0, 325: len(tile)}
    tags[324] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + tile


@pytest.mark.filterwarnings("ignore:Image was not the expected size")
def test_an_image_inside_an_ico_counts_as_large_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)

    with pytest.raises(UnreadableImage, match=r"40x50 pixels are more than 1,000"):
        decode_image(ico_of(encoded(random_image(1, (40, 50)))))


def test_a_tile_that_unpacks_to_far_more_than_the_image_is_refused() -> None:
    assert decode_image(tiff_of_one_tile(512)).size == (64, 64)

    with pytest.raises(UnreadableImage, match="its tiles are larger than the image of 64x64 pixels"):
        decode_image(tiff_of_one_tile(2048))
