"""The evaluation transform (METHOD section 8): the reference that `decoding` follows."""

from collections.abc import Callable
from typing import Any

from open_clip.transform import CenterCropOrPad, ResizeKeepRatio
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from tinyclip_workers.data.images import crop_elongated, is_elongated
from tinyclip_workers.model.preprocessing import PixelInput


def eval_transform(form: int | PixelInput) -> Callable[[Image.Image], Tensor]:
    """Return open_clip's evaluation transform without normalisation, to uint8 (3, size, size). A number is a size, for CLIP's."""
    size, interpolation, mode = form if isinstance(form, PixelInput) else PixelInput(form)
    resampling = v2.InterpolationMode(interpolation)
    if mode != "shortest":
        keep: Any = ResizeKeepRatio((size, size), interpolation=interpolation, longest=1) if mode == "longest" else None
        resize = [keep, CenterCropOrPad((size, size))] if keep else [v2.Resize((size, size), interpolation=resampling)]
        whole: Callable[[Image.Image], Tensor] = v2.Compose([*resize, v2.PILToTensor()])
        return whole
    steps = [v2.Resize(size, interpolation=resampling), v2.CenterCrop(size), v2.PILToTensor()]
    transform: Callable[[Image.Image], Tensor] = v2.Compose(steps)
    filter = Image.Resampling[interpolation.upper()]
    return lambda image: transform(crop_elongated(image, size, filter) if is_elongated(image.size) else image)
