"""Augmentation of a whole batch at once, on the training device: one warp and one colour matrix for each image.

B batch, C=3 colours, H height, W width. Random numbers come from a generator
seeded for the step, so a resumed run draws the same.
"""

import math

import torch
import torch.nn.functional as F
from tinyclip.schemas.spec import ImageAugmentation
from torch import Tensor

from tinyclip_workers.model.transfer import constants, to_device

_LUMA = (0.299, 0.587, 0.114)


def augment(images_BCHW: Tensor, settings: ImageAugmentation, generator: torch.Generator) -> Tensor:
    """Convert uint8 pixels to randomly altered float pixels in 0..1."""
    images = images_BCHW.float() / 255
    if settings.degrees or settings.translate or settings.scale or settings.horizontal_flip:
        images = _warp(images, settings, generator)
    if settings.color_jitter or settings.gray:
        images = _recolor(images, settings, generator)
    return images


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator) * (high - low) + low


def _warp(images_BCHW: Tensor, settings: ImageAugmentation, generator: torch.Generator) -> Tensor:
    """Rotate, zoom, shift and mirror; areas from outside the image repeat its border."""
    count = len(images_BCHW)
    angle = _uniform(count, -settings.degrees, settings.degrees, generator) * (math.pi / 180)
    zoom = _uniform(count, *(settings.scale or (1.0, 1.0)), generator)
    shift = _uniform(2 * count, -2 * settings.translate, 2 * settings.translate, generator).view(2, count)
    mirror = 1 - 2 * (torch.rand(count, generator=generator) < settings.horizontal_flip).float()
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    theta_B23 = torch.stack([cos * mirror, -sin, shift[0], sin * mirror, cos, shift[1]], dim=1).view(count, 2, 3)
    grid = F.affine_grid(to_device(theta_B23, images_BCHW.device), list(images_BCHW.shape), align_corners=False)
    return F.grid_sample(images_BCHW, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _recolor(images_BCHW: Tensor, settings: ImageAugmentation, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue by one 3x3 matrix and one offset for each image."""
    count, strength = len(images_BCHW), settings.color_jitter
    brightness = _uniform(count, 1 - strength, 1 + strength, generator)
    contrast = _uniform(count, 1 - strength, 1 + strength, generator)
    saturation = _uniform(count, 1 - strength, 1 + strength, generator)
    saturation = saturation * (torch.rand(count, generator=generator) >= settings.gray)
    hue = _uniform(count, -strength / 4, strength / 4, generator) * (2 * math.pi)
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
