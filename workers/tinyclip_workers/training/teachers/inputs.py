"""What each model of a stage reads of a batch: the same crop and caption, in its own size, colours and tokens.

B pairs of a batch, C=3 colours, H height, W width, T tokens of a text, P numbers of a view.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeVar

import torch
from tinyclip.schemas.spec import ImageAugmentation
from torch import Tensor

from tinyclip_workers.data.augment import augment
from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.data.stream.inputs import SingleTextTokenizer, TeacherInputs, TextInput
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.preprocessing import Color, PixelInput, normalize
from tinyclip_workers.model.towers import trims_padding
from tinyclip_workers.model.transfer import to_device

Form = TypeVar("Form")


class ModelInput(NamedTuple):
    """Images as a model receives them, and token ids of its tokenizer."""

    images_BCHW: Tensor
    tokens_BT: Tensor

    def first(self, pairs: int) -> "ModelInput":
        """Return the first pairs."""
        return ModelInput(self.images_BCHW[:pairs], self.tokens_BT[:pairs])


class PreparedBatch(NamedTuple):
    """The input of the student, and that of each teacher."""

    student: ModelInput
    teachers: list[ModelInput]


@dataclass(frozen=True)
class Reading:
    """The input of one teacher; None: that of the student."""

    colors: tuple[Color, Color] | None = None
    """Mean and deviation."""
    pixels: PixelInput | None = None
    text: TextInput | None = None

    @classmethod
    def of(cls, teacher: LoadedModel, student: LoadedModel, language: str | None = None) -> Self:
        """Return what a teacher reads, with None for what it shares with the student. `language`: of its captions, if fixed.

        Tokens of one tokenizer are shared if both models stop at the end of a text and the teacher reads as far as the student,
        so that a teacher judges the text that the student has seen.
        """
        pixels = PixelInput(teacher.layout.image_size, teacher.interpolation)
        same_pixels = pixels == PixelInput(student.layout.image_size, student.interpolation)
        trims = trims_padding(teacher.model)
        longer = teacher.layout.context_length >= student.layout.context_length
        same_length = longer if trims else teacher.layout.context_length == student.layout.context_length
        same_tokens = teacher.tokenizer_source == student.tokenizer_source and trims == trims_padding(student.model)
        same_text = language is None and same_tokens and same_length
        return cls(
            colors=(teacher.image_mean, teacher.image_std),
            pixels=None if same_pixels else pixels,
            text=None if same_text else TextInput(SingleTextTokenizer(teacher.tokenizer), trims, language),
        )


AS_STUDENT = Reading()


class InputPreparation:
    """The conversion of batches to what the student and its teachers read. Equal inputs are made once."""

    def __init__(
        self, student: tuple[Color, Color], readings: Sequence[Reading], augmentation: ImageAugmentation, device: torch.device
    ) -> None:
        """`student`: mean and deviation of its colours; `device`: of the results."""
        self._colors, self._readings = student, list(readings)
        self._augmentation, self._device = augmentation, device
        self._pixels = _distinct([reading.pixels for reading in readings])
        self._texts = _distinct([reading.text for reading in readings])

    @property
    def teacher_inputs(self) -> TeacherInputs:
        """Inputs that the training stream must make beside the student's."""
        return TeacherInputs(self._pixels, self._texts)

    def __call__(self, batch: Batch) -> PreparedBatch:
        """Move a batch to the device, augment and normalise its images."""
        return self.prepared([batch.images_BCHW, *batch.teacher_images], [batch.tokens_BT, *batch.teacher_tokens], batch.views_BP)

    def prepared(
        self, images: Sequence[Tensor], tokens: Sequence[Tensor], views_BP: Tensor | None = None
    ) -> PreparedBatch:
        """Do the same for images and tokens in each form, the student's first; without views, images are not augmented."""
        crops = [to_device(images_BCHW, self._device) for images_BCHW in images]
        if views_BP is not None:
            crops = [augment(images_BCHW, self._augmentation, views_BP) for images_BCHW in crops]
        texts = [to_device(tokens_BT, self._device) for tokens_BT in tokens]
        made: dict[tuple[int, tuple[Color, Color]], Tensor] = {}

        def pixels(form: int, colors: tuple[Color, Color]) -> Tensor:
            if (form, colors) not in made:
                made[form, colors] = normalize(crops[form], *colors).contiguous(memory_format=torch.channels_last)
            return made[form, colors]

        student = ModelInput(pixels(0, self._colors), texts[0])
        return PreparedBatch(student, [self._teacher_input(reading, pixels, texts) for reading in self._readings])

    def _teacher_input(
        self, reading: Reading, pixels: Callable[[int, tuple[Color, Color]], Tensor], texts: Sequence[Tensor]
    ) -> ModelInput:
        form = 0 if reading.pixels is None else 1 + self._pixels.index(reading.pixels)
        text = 0 if reading.text is None else 1 + self._texts.index(reading.text)
        return ModelInput(pixels(form, reading.colors or self._colors), texts[text])


def _distinct(forms: Sequence[Form | None]) -> list[Form]:
    found: list[Form] = []
    for form in forms:
        if form is not None and form not in found:
            found.append(form)
    return found
