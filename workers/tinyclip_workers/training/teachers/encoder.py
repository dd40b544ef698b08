"""Encoding of images and texts by teachers outside of a training step, as they are encoded in one.

B batch, K crops, H and W the side of a crop, C=3 colours, P numbers of a view, E embedding size.
"""

from collections.abc import Sequence

import numpy as np
import torch
from tinyclip.schemas.spec import ImageAugmentation
from torch import Tensor

from tinyclip_workers.data.augment import View, model_input
from tinyclip_workers.model.folders import LoadedModel
from tinyclip_workers.model.precision import Precision, exact
from tinyclip_workers.model.towers import without_padding
from tinyclip_workers.model.transfer import to_device
from tinyclip_workers.training.teachers.frozen import describe_teacher, freeze_teachers
from tinyclip_workers.types import Pixels

BATCH = {"cpu": 64, "cuda": 256}
"""Images or texts that are encoded at once. Rounding depends on it."""


class TeacherEncoder:
    """Teachers on a device. They receive the images that a student of the first one's preprocessing would."""

    def __init__(
        self,
        originals: Sequence[LoadedModel],
        shares: Sequence[float],
        augment: ImageAugmentation,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self._augment, self._device, self._precision = augment, device, precision
        self._first = originals[0]
        self._teachers = [teacher.to(device) for teacher in freeze_teachers(originals, shares, None)]
        self.described = [describe_teacher(model, share) for model, share in zip(originals, shares, strict=True)]

    @property
    def batch(self) -> int:
        """Images or texts to encode at once."""
        return BATCH.get(self._device.type, BATCH["cpu"])

    @property
    def on_gpu(self) -> bool:
        return self._device.type == "cuda"

    @property
    def image_size(self) -> int:
        """Side of the crops."""
        return self._first.layout.image_size

    @property
    def first_share(self) -> float:
        """Share of the first teacher in the parameters of all."""
        sizes = [sum(parameter.numel() for parameter in teacher.towers.parameters()) for teacher in self._teachers]
        return sizes[0] / sum(sizes)

    @property
    def context_length(self) -> int:
        return self._first.layout.context_length

    @torch.no_grad()
    @exact()
    def encode_images(self, crops: Sequence[Pixels], views: Sequence[View]) -> list[Tensor]:
        """Return each teacher's embeddings (B, E) of cropped images (H, W, C) and their views (P), in fp32 on the CPU."""
        images_BCHW = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
        views_BP = torch.from_numpy(np.stack(views))
        mean, std = self._first.image_mean, self._first.image_std
        inputs_BCHW = model_input(to_device(images_BCHW, self._device), self._augment, views_BP, mean, std)
        with self._precision.autocast():
            return [teacher.encode_images(inputs_BCHW).float().cpu() for teacher in self._teachers]

    @torch.no_grad()
    @exact()
    def encode_texts(self, texts: Sequence[str]) -> list[Tensor]:
        """Return each teacher's embeddings of texts (B, E), in fp32 on the CPU."""
        tokens_BT = without_padding(self._first.tokenizer(list(texts)), self._device)
        with self._precision.autocast():
            return [teacher.encode_texts(tokens_BT).float().cpu() for teacher in self._teachers]
