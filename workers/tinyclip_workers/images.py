"""From image bytes to pixels: decoding, the training crop and the evaluation transform (METHOD section 8)."""

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import v2

Pixels = npt.NDArray[np.uint8]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

Image.init()
FORMATS = tuple({"PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA", "ICO"} & Image.OPEN.keys())
"""Pictures only: PIL also knows formats that call other programs (EPS, PDF) or open further files."""
MAX_PIXELS = 64_000_000
"""A larger picture is refused before it is decoded: a small file can unpack to gigabytes."""


def decode_image(data: bytes) -> Image.Image:
    """Bytes of any of FORMATS, as RGB; EXIF orientation applied, transparency on white.

    Raises ValueError where the bytes are not an image, are cut off, or have more than MAX_PIXELS pixels.
    """
    try:
        file = Image.open(io.BytesIO(data), formats=FORMATS)
        if file.width * file.height > MAX_PIXELS:
            raise ValueError(f"{file.width}x{file.height} pixels are more than {MAX_PIXELS:,}")
        file.load()
        image: Image.Image = ImageOps.exif_transpose(file)
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return image.convert("RGB")
    except UnidentifiedImageError as error:
        raise ValueError("not a readable image: no known format") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a readable image: {error}") from error


def random_resized_crop(image: Image.Image, size: int, scale: tuple[float, float], rng: np.random.Generator) -> Pixels:
    """A random part of the picture (share `scale` of its area, side ratio 3:4 to 4:3) as (size, size, 3), bicubic."""
    width, height = image.size
    area = width * height * rng.uniform(*scale)
    ratio = float(np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3))))
    crop_w, crop_h = min(width, float(np.sqrt(area * ratio))), min(height, float(np.sqrt(area / ratio)))
    left, top = rng.uniform(0, width - crop_w), rng.uniform(0, height - crop_h)
    box = (left, top, left + crop_w, top + crop_h)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))


def eval_transform(size: int) -> Callable[[Image.Image], Tensor]:
    """open_clip's evaluation transform without the normalisation: resize the short side, centre crop; uint8 (3, size, size)."""
    steps = [v2.Resize(size, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(size), v2.PILToTensor()]
    transform: Callable[[Image.Image], Tensor] = v2.Compose(steps)
    return transform


def normalize(images_BCHW: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 or 0..1 float pixels to the towers' input, fp32."""
    pixels = images_BCHW.float() / 255 if images_BCHW.dtype == torch.uint8 else images_BCHW
    shape = (1, 3, 1, 1)
    return (pixels - pixels.new_tensor(mean).view(shape)) / pixels.new_tensor(std).view(shape)
