"""Images as coloured half blocks, for display in a terminal."""

import io

from PIL import Image
from rich.style import Style
from rich.text import Text


def thumbnail(encoded: bytes, width: int) -> Text:
    """Return the image `width` columns wide and half as many lines high: each character shows two pixels, one above the other."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB").resize((width, width - width % 2), Image.Resampling.BOX)
    rgb = image.tobytes()
    text = Text(no_wrap=True)
    for row in range(0, image.height, 2):
        for column in range(width):
            above, below = (3 * (y * width + column) for y in (row, row + 1))
            text.append("▀", Style(color=_color(rgb[above : above + 3]), bgcolor=_color(rgb[below : below + 3])))
        if row + 2 < image.height:
            text.append("\n")
    return text


def _color(pixel: bytes) -> str:
    red, green, blue = pixel
    return f"rgb({red},{green},{blue})"
