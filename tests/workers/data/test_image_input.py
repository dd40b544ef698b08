"""Images in requests: accepted forms, and refusals with the remedy."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from tinyclip_workers.data.image_input import BadImage, read_image
from tinyclip_workers.types import Pixels

from tests.workers.students import encoded, random_image

LIMIT = 1_000_000


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def read(image: str | bytes, size: int = 40) -> Pixels:
    return read_image(image, LIMIT, size)


CENTRE = np.asarray(random_image(0))[:, 5:45]
"""The centre of the image: at the size of its short side, nothing is resized."""


class TestAcceptedImages:

    @pytest.mark.parametrize("prefix", ["data:image/png;base64,", "data:;base64,", "DATA:image/png;name=x.png;BASE64,", " \n"])
    def test_base64_and_data_uris_are_read(self, prefix: str) -> None:
        np.testing.assert_array_equal(read(prefix + base64_of(encoded(random_image(0)))), CENTRE)

    def test_base64_with_line_breaks_is_read(self) -> None:
        np.testing.assert_array_equal(read(base64.encodebytes(encoded(random_image(0))).decode()), CENTRE)

    def test_uploaded_bytes_are_read(self) -> None:
        np.testing.assert_array_equal(read(encoded(random_image(0))), CENTRE)


class TestRefusedImages:
    @pytest.mark.parametrize(
        ("image", "reason"),
        [
            ("", "is empty"),
            (b"", "is empty"),
            (b"this is text", "not a readable image"),
            (base64_of(b"%PDF-1.7 not an image"), "not a readable image"),
            ("not base64 at all!", "is not base64"),
            ("data:image/png,rawbytes", "without ;base64"),
            ("https://example.com/cat.png", "is a URL"),
            ("file:///etc/passwd", "is a URL"),
        ],
    )
    def test_anything_but_an_image_is_refused_with_the_remedy(self, image: str | bytes, reason: str) -> None:
        with pytest.raises(BadImage, match=reason) as refused:
            read(image)

        assert "base64-encoded or as a data URI" in str(refused.value)

    def test_more_bytes_than_allowed_are_refused(self) -> None:
        data = encoded(random_image(0))

        for image in (data, base64_of(data), base64_of(data * 100)):
            with pytest.raises(BadImage, match="scale the image down"):
                read_image(image, len(data) - 1, 40)

    def test_more_pixels_than_allowed_are_never_decoded(self) -> None:
        header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
        bomb = io.BytesIO(b"\x89PNG\r\n\x1a\n")
        bomb.seek(0, io.SEEK_END)
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")):
            bomb.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))

        with pytest.raises(BadImage, match=r"pixels"):
            read(bomb.getvalue())
