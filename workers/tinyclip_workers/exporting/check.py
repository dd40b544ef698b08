"""Whether an export says the same as torch: both asked for the same pictures and texts, their unit embeddings compared.

Shapes: B pictures or texts, S image size, E embedding size.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from tinyclip.schemas import Agreement, ExportCheck, ExportTolerance
from torch import Tensor

from tinyclip_workers.evaluation.embedding import embed_texts
from tinyclip_workers.exporting.samples import Samples, pixels
from tinyclip_workers.model.folders import LoadedModel
from tinyclip_workers.model.preprocessing import normalize
from tinyclip_workers.types import Matrix

BATCH = 32
LEAST_READ_ALIKE = 0.9
"""Of texts as they are found; open_clip mends odd characters that no other tokenizer does."""
FP32 = ExportTolerance(largest_difference=1e-5, own_preprocessing_mean_cosine=0.99)
INT8 = ExportTolerance(mean_cosine=0.99, own_preprocessing_mean_cosine=0.99)
"""A library's own preprocessing may round pixels otherwise, and take the other of two middles where a crop has no whole one."""


class ExportOff(Exception):
    """An export that is further from torch than is tolerated; the message says what, by how much and what is tolerated."""


class Opened(Protocol):
    """An export loaded as its users load it. Embeddings are (B, E) of length 1."""

    def images(self, pixels_BCSS: Tensor) -> Matrix:
        """Of uint8 pictures that have the model's size already."""
        ...

    def photos(self, pictures: Sequence[Image.Image]) -> Matrix:
        """Of whole pictures, resized and cropped by the library that the format is for, or by open_clip's transform."""
        ...

    def texts(self, texts: Sequence[str]) -> Matrix:
        """Through the tokenizer that is exported."""
        ...

    def tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """(B, L): texts as that tokenizer reads them, with whatever follows the end of a text."""
        ...


def check_export(loaded: LoadedModel, opened: Opened, samples: Samples, *, int8: bool, calibrated: int) -> ExportCheck:
    """What an export is worth. Raises ExportOff."""
    pictures_BCSS = pixels(samples.checked, loaded.layout.image.image_size)
    texts = _read_alike(loaded, opened, samples.texts)
    torch_images_BE = torch_images(loaded, pictures_BCSS)
    check = ExportCheck(
        data=samples.source, pictures=len(samples.checked), texts=len(texts),
        texts_read_otherwise=len(samples.texts) - len(texts), calibrated_on=calibrated,
        image=agreement(torch_images_BE, opened.images(pictures_BCSS)),
        text=agreement(torch_texts(loaded, texts), opened.texts(texts)),
        own_preprocessing=agreement(torch_images_BE, opened.photos(samples.checked)),
        tolerance=INT8 if int8 else FP32,
    )
    _expect_near(check)
    return check


def agreement(torch_BE: Matrix, export_BE: Matrix) -> Agreement:
    """Raises ExportOff for embeddings of another shape or that are not numbers."""
    if export_BE.shape != torch_BE.shape or not np.isfinite(export_BE).all():
        raise ExportOff(f"the export gives {export_BE.shape} embeddings, finite {np.isfinite(export_BE).all()}; "
                        f"torch gives {torch_BE.shape}")
    cosines_B = (torch_BE.astype(np.float64) * export_BE).sum(axis=1) / np.linalg.norm(export_BE.astype(np.float64), axis=1)
    return Agreement(
        largest_difference=float(np.abs(torch_BE - export_BE).max()),
        mean_cosine=float(cosines_B.mean()),
        least_cosine=float(cosines_B.min()),
    )


@torch.no_grad()
def torch_images(loaded: LoadedModel, pixels_BCSS: Tensor) -> Matrix:
    """Torch's own embeddings of uint8 pictures, fp32."""
    batches = normalize(pixels_BCSS, loaded.image_mean, loaded.image_std).split(BATCH)
    images_BE: Matrix = F.normalize(torch.cat([loaded.model.encode_image(batch) for batch in batches]), dim=-1).numpy()
    return images_BE


@torch.no_grad()
def torch_texts(loaded: LoadedModel, texts: Sequence[str]) -> Matrix:
    """Torch's own embeddings of texts, fp32."""
    texts_BE: Matrix = embed_texts(loaded, texts).numpy()
    return texts_BE


def _read_alike(loaded: LoadedModel, opened: Opened, texts: Sequence[str]) -> list[str]:
    """The texts that both tokenizers read as the same tokens. Raises ExportOff if those are too few."""
    ours_BT, theirs_BL = loaded.tokenizer(list(texts)).numpy(), opened.tokens(texts)
    alike = [text for text, ours, theirs in zip(texts, ours_BT, theirs_BL, strict=True) if _ids(ours) == _ids(theirs)]
    if len(alike) < LEAST_READ_ALIKE * len(texts):
        raise ExportOff(f"the exported tokenizer reads {len(texts) - len(alike)} of {len(texts)} texts as other tokens")
    return alike


def _ids(tokens_T: npt.NDArray[np.int64]) -> list[int]:
    """Up to and with the end of text, the largest id."""
    ids: list[int] = tokens_T[: int(tokens_T.argmax()) + 1].tolist()
    return ids


def _expect_near(check: ExportCheck) -> None:
    most, least = check.tolerance.largest_difference, check.tolerance.mean_cosine
    for what, found in (("image", check.image), ("text", check.text)):
        if most is not None and found.largest_difference > most:
            off = f"{found.largest_difference:.2g}; {most:g} is tolerated"
            raise ExportOff(f"{what} embeddings differ from torch's by up to {off}")
        if least is not None and found.mean_cosine < least:
            raise ExportOff(f"{what} embeddings have a mean cosine of {found.mean_cosine:.4f} to torch's; {least:g} is needed")
    own, needed = check.own_preprocessing, check.tolerance.own_preprocessing_mean_cosine
    if own.mean_cosine < needed:
        raise ExportOff(f"pictures prepared by the exported settings have a mean cosine of {own.mean_cosine:.4f} "
                        f"to torch's; {needed:g} is needed")
