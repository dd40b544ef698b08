"""Images as clients send them: what is read, and what is refused with the way out."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tinyclip_workers.serving.inputs import BadImage, read_image

from tests.workers.students import encoded, picture

LIMIT = 1_000_000
RED, WHITE = (255, 0, 0), (255, 255, 255)


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


class TestGoodImages:
    @pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
    def test_formats(self, format: str) -> None:
        image = read_image(base64_of(encoded(picture(0), format)), LIMIT)

        assert (image.mode, image.size) == ("RGB", (50, 40))

    @pytest.mark.parametrize("prefix", ["data:image/png;base64,", "data:;base64,", "DATA:image/png;name=x.png;BASE64,", " \n"])
    def test_ways_to_write_base64(self, prefix: str) -> None:
        image = read_image(prefix + base64_of(encoded(picture(0))), LIMIT)

        np.testing.assert_array_equal(np.asarray(image), np.asarray(picture(0)))

    def test_base64_with_line_breaks(self) -> None:
        text = base64.encodebytes(encoded(picture(0))).decode()

        np.testing.assert_array_equal(np.asarray(read_image(text, LIMIT)), np.asarray(picture(0)))

    def test_uploaded_bytes(self) -> None:
        np.testing.assert_array_equal(np.asarray(read_image(encoded(picture(0)), LIMIT)), np.asarray(picture(0)))

    def test_transparency_is_laid_on_white(self) -> None:
        image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
        image.putpixel((1, 1), (*RED, 255))

        read = read_image(encoded(image), LIMIT)

        assert (read.getpixel((1, 1)), read.getpixel((0, 0))) == (RED, WHITE)

    def test_a_palette_with_a_transparent_colour(self) -> None:
        image = Image.new("P", (4, 4), 0)
        image.putpalette([0, 0, 0, *RED])
        image.putpixel((1, 1), 1)

        read = read_image(encoded(image, transparency=0), LIMIT)

        assert (read.getpixel((1, 1)), read.getpixel((0, 0))) == (RED, WHITE)

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16"])
    def test_other_pixel_modes(self, mode: str) -> None:
        assert read_image(encoded(Image.new(mode, (8, 8))), LIMIT).mode == "RGB"

    def test_cmyk_jpeg(self) -> None:
        read = read_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), LIMIT)

        red, green, blue = read.getpixel((4, 4))
        assert red > 200
        assert max(green, blue) < 60

    def test_exif_orientation_is_applied(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees to see it upright

        assert read_image(encoded(picture(0), "JPEG", exif=exif), LIMIT).size == (40, 50)


class TestBadImages:
    @pytest.mark.parametrize(
        ("image", "why"),
        [
            ("", "is empty"),
            (b"", "is empty"),
            (b"this is text", "not a readable image"),
            (base64_of(b"%PDF-1.7 not a picture"), "not a readable image"),
            ("not base64 at all!", "is not base64"),
            ("data:image/png,rawbytes", "without ;base64"),
            ("https://example.com/cat.png", "is a URL"),
            ("file:///etc/passwd", "is a URL"),
        ],
    )
    def test_what_is_no_image(self, image: str | bytes, why: str) -> None:
        with pytest.raises(BadImage, match=why) as refused:
            read_image(image, LIMIT)

        assert "base64-encoded or as a data URI" in str(refused.value)

    @pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
    def test_a_truncated_file(self, format: str) -> None:
        data = encoded(picture(0, (300, 300)), format)

        with pytest.raises(BadImage, match="not a readable image"):
            read_image(data[: len(data) // 2], LIMIT)

    def test_more_bytes_than_allowed(self) -> None:
        data = encoded(picture(0))

        for image in (data, base64_of(data), base64_of(data * 100)):
            with pytest.raises(BadImage, match="scale the image down"):
                read_image(image, len(data) - 1)

    def test_more_pixels_than_allowed_are_never_decoded(self) -> None:
        header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
        bomb = io.BytesIO(b"\x89PNG\r\n\x1a\n")
        bomb.seek(0, io.SEEK_END)
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")):
            bomb.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))

        with pytest.raises(BadImage, match=r"pixels"):
            read_image(bomb.getvalue(), LIMIT)
