"""The fast decoder of training crops gives the pixels of a whole image that is cropped and resized, for every kind of file."""

import io
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps
from tinyclip_workers.data.crops import Crop, random_crop
from tinyclip_workers.data.decoding import decode_crop, decode_square
from tinyclip_workers.data.images import UnreadableImage, decode_image
from tinyclip_workers.types import Pixels

from tests.workers.data.test_decoding import RED, WHITE, photo
from tests.workers.students import encoded

SIZE = 32


def cropped_and_resized(image: Image.Image, crop: Crop, size: int = SIZE) -> Pixels:
    return np.asarray(image.crop(crop.box).resize((size, size), Image.Resampling.BICUBIC))


def difference(data: bytes, crop: Crop, size: int = SIZE) -> Pixels:
    pixels = decode_crop(data, size, lambda width, height: crop)
    assert (pixels.shape, pixels.dtype, pixels.flags.c_contiguous) == ((size, size, 3), np.uint8, True)
    return np.abs(pixels.astype(int) - cropped_and_resized(decode_image(data), crop, size))


def random_crops(width: int, height: int, multiple: int = 1) -> list[Crop]:
    """Crops of any size, whose edges are multiples."""
    rng = np.random.default_rng(width)
    boxes = [random_crop(width, height, (0.4, 1.0), rng).box for _ in range(4)]
    edges = [[edge // multiple * multiple for edge in box] for box in boxes]
    return [Crop(left, top, right - left, bottom - top) for left, top, right, bottom in edges]


class TestEqualToCroppingAndResizing:
    @pytest.mark.parametrize("size", [(50, 40), (33, 90), (32, 32), (20, 13), (131, 77), (1, 1), (1, 9), (300, 299)])
    @pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP"])
    def test_formats_that_pil_decodes(self, size: tuple[int, int], format: str) -> None:
        data = encoded(photo(*size), format)

        assert max(difference(data, crop).max() for crop in random_crops(*size)) <= 2

    @pytest.mark.parametrize("size", [(50, 40), (40, 47), (20, 13), (40, 40), (1, 1), (17, 8)])
    @pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
    def test_jpegs_that_are_hardly_reduced(self, size: tuple[int, int], subsampling: str) -> None:
        data = encoded(photo(*size), "JPEG", quality=90, subsampling=subsampling)

        assert max(difference(data, crop).max() for crop in random_crops(*size)) <= 2

    @pytest.mark.parametrize(("size", "target"), [((500, 375), 224), ((375, 500), 160)])
    def test_reduced_jpegs_with_colour_in_full_resolution(self, size: tuple[int, int], target: int) -> None:
        data = encoded(photo(*size), "JPEG", quality=90, subsampling="4:4:4")

        assert difference(data, Crop(7, 9, size[0] - 20, size[1] - 30), target).max() <= 2

    @pytest.mark.parametrize(("size", "target"), [((512, 376), 224), ((512, 376), 48), ((640, 480), 100), ((1600, 1200), 224)])
    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:2:2"}], ids=str)
    def test_reduced_jpegs(self, size: tuple[int, int], target: int, options: dict[str, Any]) -> None:
        data = encoded(photo(*size), "JPEG", quality=85, **options)

        for crop in random_crops(*size, multiple=8):  # no edge between decoded pixels
            found = difference(data, crop, target)
            assert found.mean() < 1.5
            assert found.max() <= 12

    def test_edges_are_rounded_to_decoded_pixels(self) -> None:
        data = encoded(photo(1600, 1200), "JPEG", quality=85)

        decoded = simplejpeg.decode_jpeg(data, "RGB", min_height=300, min_width=400)
        expected = cropped_and_resized(Image.fromarray(decoded), Crop(5, 10, 345, 280), 150)
        found = decode_crop(data, 150, lambda width, height: Crop(19, 41, 1381, 1120))  # 4.75, 10.25, 350, 290.25
        assert np.abs(found.astype(int) - expected).max() <= 2

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize(("format", "size"), [("JPEG", (60, 40)), ("JPEG", (400, 304)), ("WEBP", (60, 41)), ("PNG", (9, 7))])
    def test_crops_are_of_the_upright_image(self, orientation: int, format: str, size: tuple[int, int]) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(photo(*size), format, exif=exif)
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        crop = random_crops(*upright.size, multiple=8 if max(size) > 300 else 1)[0]

        sizes: list[tuple[int, int]] = []
        found = decode_crop(data, SIZE, lambda width, height: (sizes.append((width, height)), crop)[1])

        assert sizes == [upright.size]
        apart = np.abs(found.astype(int) - cropped_and_resized(upright, crop))
        assert (apart.mean() < 1.5, apart.max() <= 12) == (True, True)

    def test_the_whole_image_is_that_of_the_evaluation(self) -> None:
        data = encoded(photo(400, 400), "JPEG", quality=90)

        apart = np.abs(decode_crop(data, SIZE, lambda *size: Crop(0, 0, *size)).astype(int) - decode_square(data, SIZE))
        assert apart.max() <= 6

    def test_grey_jpegs_stay_grey(self) -> None:
        data = encoded(photo(400, 304).convert("L"), "JPEG")

        assert difference(data, Crop(8, 8, 240, 280)).max() <= 2
        assert np.ptp(decode_crop(data, SIZE, lambda width, height: Crop(1, 3, 100, 99)), axis=2).max() == 0


class TestDrawing:
    def test_a_stored_crop_replays_the_pixels(self) -> None:
        data, drawn = encoded(photo(500, 375), "JPEG"), []

        rng = np.random.default_rng(3)
        first = decode_crop(data, SIZE, lambda w, h: drawn.append(random_crop(w, h, (0.3, 0.9), rng)) or drawn[0])
        again = decode_crop(data, SIZE, lambda width, height: Crop(*map(int, drawn[0])))

        assert len(drawn) == 1
        np.testing.assert_array_equal(first, again)

    def test_it_draws_once_from_a_jpeg_that_only_pil_reads(self) -> None:
        data = encoded(photo(50, 40), "JPEG")
        data = data[:-2] + b"\x11\x22\x33" + data[-2:]
        with pytest.raises(ValueError, match="extraneous"):
            simplejpeg.decode_jpeg(data)

        sizes: list[tuple[int, int]] = []
        found = decode_crop(data, SIZE, lambda width, height: (sizes.append((width, height)), Crop(3, 4, 40, 30))[1])

        assert sizes == [(50, 40)]
        assert np.abs(found.astype(int) - cropped_and_resized(decode_image(data), Crop(3, 4, 40, 30))).max() <= 2

    @pytest.mark.parametrize("format", ["JPEG", "PNG"])
    @pytest.mark.parametrize("crop", [Crop(0, 0, 51, 40), Crop(0, 1, 50, 40), Crop(-1, 0, 9, 9), Crop(3, 3, 0, 9)], ids=str)
    def test_a_crop_beyond_the_image_is_refused(self, format: str, crop: Crop) -> None:
        with pytest.raises(ValueError, match=r"the crop \(.*\) does not fit into the image of 50x40 pixels; draw it again"):
            decode_crop(encoded(photo(50, 40), format), SIZE, lambda width, height: crop)

    @pytest.mark.parametrize("format", ["JPEG", "PNG"])
    def test_errors_of_drawing_are_not_the_images(self, format: str) -> None:
        def draw(width: int, height: int) -> Crop:
            raise LookupError("no stored crop")

        with pytest.raises(LookupError, match="no stored crop"):
            decode_crop(encoded(photo(50, 40), format), SIZE, draw)


class TestScales:
    @pytest.mark.parametrize(
        ("side", "crop", "decoded"), [(671, 671, 671), (672, 672, 336), (1343, 1343, 672), (1344, 1344, 336), (2000, 600, 2000)]
    )
    def test_the_crop_is_decoded_to_at_least_one_and_a_half_squares(
        self, side: int, crop: int, decoded: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sides, decode = [], simplejpeg.decode_jpeg
        monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *a, **k: sides.append(decode(*a, **k)) or sides[-1])

        decode_crop(encoded(Image.new("RGB", (side, side)), "JPEG"), 224, lambda width, height: Crop(0, 0, crop, crop))

        assert [pixels.shape[:2] for pixels in sides] == [(decoded, decoded)]

    @pytest.mark.parametrize(("side", "decoded"), [(500, 500), (800, 800), (896, 448), (1700, 850), (1792, 448), (3584, 448)])
    def test_squares_are_decoded_at_scales_that_are_fast(
        self, side: int, decoded: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sides, decode = [], simplejpeg.decode_jpeg
        monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *a, **k: sides.append(decode(*a, **k)) or sides[-1])

        decode_square(encoded(Image.new("RGB", (side, side)), "JPEG"), 224)

        assert [pixels.shape[:2] for pixels in sides] == [(decoded, decoded)]


class TestUnusualFiles:
    def test_a_cmyk_jpeg_is_converted(self) -> None:
        data = encoded(Image.new("CMYK", (40, 40), (0, 255, 255, 0)), "JPEG")

        red, green, blue = decode_crop(data, SIZE, lambda width, height: Crop(4, 4, 30, 30))[16, 16]

        assert red > 200
        assert max(green, blue) < 60

    @pytest.mark.parametrize("mode", ["RGBA", "P"])
    def test_transparency_is_laid_on_white(self, mode: str) -> None:
        image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
        image.paste((*RED, 255), (32, 32, 48, 64))
        data = encoded(image if mode == "RGBA" else image.quantize(), "PNG")

        seen = decode_crop(data, SIZE, lambda width, height: Crop(32, 32, 32, 32))

        assert (tuple(seen[16, 4]), tuple(seen[16, 28])) == (RED, WHITE)

    def test_sixteen_bit_grey_is_scaled_to_eight_bits(self) -> None:
        ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)

        seen = decode_crop(encoded(Image.fromarray(ramp)), SIZE, lambda width, height: Crop(32, 16, SIZE, SIZE))

        np.testing.assert_allclose(seen[..., 0], ramp[16:48, 32:] / 257, atol=0.51)

    @pytest.mark.parametrize("size", [(1_000_000, 1), (1, 1_000_000), (1, 1), (3000, 20)], ids=str)
    @pytest.mark.parametrize("format", ["PNG", "JPEG"])
    def test_lines_and_single_pixels_are_enlarged(self, size: tuple[int, int], format: str) -> None:
        size = (min(size[0], 65_500), min(size[1], 65_500)) if format == "JPEG" else size
        data, rng = encoded(Image.new("RGB", size, "red"), format), np.random.default_rng(0)

        seen = decode_crop(data, SIZE, lambda width, height: random_crop(width, height, (0.9, 1.0), rng))

        assert np.abs(seen.astype(int) - RED).max() <= 1

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
    def test_broken_exif_is_ignored(self) -> None:
        data = encoded(photo(40, 44), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff no directory")

        assert difference(data, Crop(1, 2, 30, 40)).max() <= 2

    @pytest.mark.parametrize("before", [b"\xff\xfe\x00\x06note", b"\xff\xe2\x00\x04ab", b"\xff\xff\xfe\x00\x04ab"], ids=str)
    def test_exif_is_found_behind_other_segments(self, before: bytes) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        data = encoded(photo(60, 40), "JPEG", exif=exif)

        sizes: list[tuple[int, int]] = []
        decode_crop(data[:2] + before + data[2:], SIZE, lambda *size: (sizes.append(size), Crop(0, 0, *size))[1])

        assert sizes == [(40, 60)]


class TestRefused:
    @pytest.mark.parametrize(
        "data", [b"", b"text", b"%PDF-1.7", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF0000WEBPVP8 "]
    )
    def test_bytes_that_are_not_an_image_are_refused(self, data: bytes) -> None:
        with pytest.raises(UnreadableImage, match="not a readable image"):
            decode_crop(data, SIZE, lambda *size: Crop(0, 0, *size))

    @pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
    @pytest.mark.parametrize("left", [0.1, 0.5, 0.9])
    def test_a_truncated_file_is_refused(self, format: str, left: float) -> None:
        data = encoded(photo(300, 300), format)

        with pytest.raises(UnreadableImage, match="not a readable image"):
            decode_crop(data[: int(len(data) * left)], SIZE, lambda *size: Crop(0, 0, *size))

    @pytest.mark.parametrize("format", ["JPEG", "PNG"])
    def test_an_image_of_too_many_pixels_is_refused_before_drawing(self, format: str) -> None:
        data, drawn = encoded(Image.new("L", (8001, 8001)), format), []

        with pytest.raises(UnreadableImage, match=r"8001x8001 pixels are more than 64,000,000; scale"):
            decode_crop(data, SIZE, lambda *size: drawn.append(size) or Crop(0, 0, *size))
        assert not drawn

    def test_a_jpeg_with_too_many_scans_is_refused(self) -> None:
        data = encoded(photo(500, 500).resize((2000, 2000)), "JPEG", progressive=True)
        scan = data[data.rindex(b"\xff\xda") : -2]

        with pytest.raises(UnreadableImage, match=r"scans of 2000x2000 pixels are too many; save it as a baseline JPEG"):
            decode_crop(data[:-2] + scan[:14] * 400 + b"\xff\xd9", SIZE, lambda *size: Crop(0, 0, *size))
