"""Augmentation: the random view of each image, drawn for its sample, and its effect on a whole batch on the training device.

A view is a vector of the numbers in `VIEW`. The loader draws it, or finds a stored one, and crops; warp and colours follow on
the device: one warp and one colour matrix for each image.

B batch, C=3 colours, H height, W width, P numbers of a view.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tinyclip.schemas.spec import ImageAugmentation
from torch import Tensor

from tinyclip_workers.data.crops import Crop, random_crop
from tinyclip_workers.model.preprocessing import Color, normalize
from tinyclip_workers.model.transfer import constants, to_device

VIEW = (
    "left", "top", "width", "height",  # of the crop, in pixels of the upright image
    "angle", "zoom", "shift_x", "shift_y", "mirror",  # radians; factor; shares of half a side; -1 or 1
    "brightness", "contrast", "saturation", "hue",  # factors; radians
)  # fmt: skip
"""The numbers of a view, in the order in which they are drawn and stored."""
_CROP, _NEUTRAL = 4, (0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0)

_LUMA = (0.299, 0.587, 0.114)

View = NDArray[np.float32]


def draw_view(settings: ImageAugmentation, width: int, height: int, rng: np.random.Generator) -> View:
    """Draw the view (P) of an image of these sides. What the settings do not change is not drawn."""
    view = neutral_view(random_crop(width, height, settings.crop_scale, rng))
    if warps(settings):
        angle = rng.uniform(-settings.degrees, settings.degrees) * (math.pi / 180)
        zoom = rng.uniform(*(settings.scale or (1.0, 1.0)))
        shifts = rng.uniform(-2 * settings.translate, 2 * settings.translate, 2)
        view[4:9] = angle, zoom, *shifts, -1 if rng.random() < settings.horizontal_flip else 1
    if recolors(settings):
        strength = settings.color_jitter
        brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
        hue = rng.uniform(-strength / 4, strength / 4) * (2 * math.pi)
        view[9:13] = brightness, contrast, 0 if rng.random() < settings.gray else saturation, hue
    return view


def neutral_view(crop: Crop) -> View:
    """Return the view (P) that is a crop without warp and change of colours."""
    return np.array([*crop, *_NEUTRAL], dtype=np.float32)


def crop_of(view: View) -> Crop:
    return Crop(*(int(number) for number in view[:_CROP]))


def warps(settings: ImageAugmentation) -> bool:
    return bool(settings.degrees or settings.translate or settings.scale or settings.horizontal_flip)


def recolors(settings: ImageAugmentation) -> bool:
    return bool(settings.color_jitter or settings.gray)


def augment(images_BCHW: Tensor, settings: ImageAugmentation, views_BP: Tensor) -> Tensor:
    """Convert cropped uint8 pixels to the views' float pixels in 0..1. `views_BP` is on the CPU."""
    images = images_BCHW.float() / 255
    if warps(settings):
        images = _warp(images, views_BP)
    if recolors(settings):
        images = _recolor(images, views_BP)
    return images


def model_input(images_BCHW: Tensor, settings: ImageAugmentation, views_BP: Tensor, mean: Color, std: Color) -> Tensor:
    """Convert cropped uint8 pixels to what a model receives in training: augmented, normalised, channels last."""
    return normalize(augment(images_BCHW, settings, views_BP), mean, std).contiguous(memory_format=torch.channels_last)


def _warp(images_BCHW: Tensor, views_BP: Tensor) -> Tensor:
    """Rotate, zoom, shift and mirror; areas from outside the image repeat its border."""
    angle, zoom, shift_x, shift_y, mirror = views_BP[:, 4:9].unbind(1)
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    theta_B23 = torch.stack([cos * mirror, -sin, shift_x, sin * mirror, cos, shift_y], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(to_device(theta_B23, images_BCHW.device), list(images_BCHW.shape), align_corners=False)
    return F.grid_sample(images_BCHW, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _recolor(images_BCHW: Tensor, views_BP: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue by one 3x3 matrix and one offset for each image."""
    brightness, contrast, saturation, hue = views_BP[:, 9:13].unbind(1)
    device = images_BCHW.device
    matrix_B33 = to_device(_saturate(saturation) @ _rotate_hue(hue) * (brightness * contrast).view(-1, 1, 1), device)
    mean_B3 = images_BCHW.mean(dim=(2, 3))
    luma_B = to_device(brightness, device) * (mean_B3 @ constants(_LUMA, mean_B3))
    offset_B = luma_B * to_device(1 - contrast, device)
    mixed = torch.einsum("bij,bjhw->bihw", matrix_B33, images_BCHW)
    return (mixed + offset_B.view(-1, 1, 1, 1)).clamp(0, 1)


def _saturate(amount_B: Tensor) -> Tensor:
    luma_33 = torch.tensor(_LUMA).repeat(3, 1)
    return luma_33 + amount_B.view(-1, 1, 1) * (torch.eye(3) - luma_33)


def _rotate_hue(angle_B: Tensor) -> Tensor:
    """Return rotations about the gray axis (Rodrigues' formula)."""
    third, root = 1 / 3, math.sqrt(1 / 3)
    cos, sin = angle_B.cos().view(-1, 1, 1), angle_B.sin().view(-1, 1, 1)
    cross_33 = root * torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    return cos * torch.eye(3) + sin * cross_33 + (1 - cos) * torch.full((3, 3), third)
