"""Encoding of images and texts by teachers outside of a training step, as they are encoded in one.

B batch, K crops, H and W the side of a crop, C=3 colours, P numbers of a view, E embedding size.
"""

from collections.abc import Sequence

import numpy as np
import torch
from tinyclip.schemas.spec import ImageAugmentation
from torch import Tensor

from tinyclip_workers.data.augment import View
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.precision import Precision, exact
from tinyclip_workers.model.preprocessing import PixelInput
from tinyclip_workers.model.towers import trims_padding, without_padding
from tinyclip_workers.model.transfer import to_device
from tinyclip_workers.training.teachers.frozen import describe_teacher, freeze_teachers
from tinyclip_workers.training.teachers.inputs import InputPreparation, Reading
from tinyclip_workers.types import Pixels

BATCH = {"cpu": 64, "cuda": 256}
"""Images or texts that are encoded at once. Rounding depends on it."""


class TeacherEncoder:
    """Teachers on a device. Each receives crops and texts in its own form."""

    def __init__(
        self,
        originals: Sequence[LoadedModel],
        shares: Sequence[float],
        augment: ImageAugmentation,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self._device, self._precision = device, precision
        self._first = first = originals[0]
        self._teachers = [teacher.to(device) for teacher in freeze_teachers(originals, shares, None, first)]
        readings = [teacher.reading for teacher in self._teachers]
        self._trims = trims_padding(first.model)
        self._prepare = InputPreparation((first.image_mean, first.image_std), readings, augment, device)
        self.described = [describe_teacher(model, share) for model, share in zip(originals, shares, strict=True)]

    @property
    def batch(self) -> int:
        """Images or texts to encode at once."""
        return BATCH.get(self._device.type, BATCH["cpu"])

    @property
    def on_gpu(self) -> bool:
        return self._device.type == "cuda"

    @property
    def pixels(self) -> list[PixelInput]:
        """The forms of the crops that `encode_images` takes."""
        first = PixelInput(self._first.layout.image_size, self._first.interpolation)
        return [first, *self._prepare.teacher_inputs.pixels]

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
    def encode_images(self, crops: Sequence[Sequence[Pixels]], views: Sequence[View]) -> list[Tensor]:
        """Return each teacher's embeddings (B, E) of crops and their views (P), in fp32 on the CPU.

        Each crop is in all forms of `pixels` (H, W, C).
        """
        images = [torch.from_numpy(np.stack(form)).permute(0, 3, 1, 2) for form in zip(*crops, strict=True)]
        views_BP = torch.from_numpy(np.stack(views))
        no_text = torch.zeros(len(views), 1, dtype=torch.long)
        tokens = [no_text, *(no_text for _ in self._prepare.teacher_inputs.texts)]
        inputs = self._prepare.prepared(images, tokens, views_BP).teachers
        with self._precision.autocast():
            found = zip(self._teachers, inputs, strict=True)
            return [teacher.encode_images(own.images_BCHW).float().cpu() for teacher, own in found]

    @torch.no_grad()
    @exact()
    def encode_texts(self, texts: Sequence[str]) -> list[Tensor]:
        """Return each teacher's embeddings of texts (B, E), in fp32 on the CPU."""
        shared_BT = self._first.tokenizer(list(texts))
        tokens = [self._tokens(teacher.reading, texts, shared_BT) for teacher in self._teachers]
        with self._precision.autocast():
            found = zip(self._teachers, tokens, strict=True)
            return [teacher.encode_texts(tokens_BT).float().cpu() for teacher, tokens_BT in found]

    def _tokens(self, reading: Reading, texts: Sequence[str], shared_BT: Tensor) -> Tensor:
        text = reading.text
        tokens_BT = shared_BT if text is None else torch.stack([text.tokenize(each) for each in texts])
        trims = self._trims if text is None else text.trims
        return without_padding(tokens_BT, self._device) if trims else to_device(tokens_BT, self._device)
