"""Check an export against torch: compare the unit embeddings of the same images and texts.

Shapes: B images or texts, S image size, L tokens, E embedding size.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from tinyclip.schemas import Agreement, EmbeddingType, ExportCheck, ExportOptions, ExportTolerance
from torch import Tensor

from tinyclip_workers.evaluation.embedding import embed_texts
from tinyclip_workers.exporting.samples import Samples, to_pixels
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.preprocessing import normalize
from tinyclip_workers.model.towers import trims_padding
from tinyclip_workers.types import Matrix

BATCH = 32
MIN_SAME_TOKENS_SHARE = 0.9
"""Share of texts with equal tokens: open_clip repairs unusual characters that other tokenizers do not."""
FP32 = ExportTolerance(largest_difference=1e-5, own_preprocessing_mean_cosine=0.99)
ROUNDED_EMBEDDING = FP32.model_copy(update={"text_mean_cosine": 0.999})
INT8 = ExportTolerance(mean_cosine=0.99, own_preprocessing_mean_cosine=0.99)
"""A library's own preprocessing may round pixels differently, and crop one pixel further where there is no exact middle."""


class ExportMismatch(Exception):
    """An export whose embeddings differ from torch's by more than the tolerance."""


class ExportedModel(Protocol):
    """An export, loaded as its users load it. Embeddings are (B, E) of length 1."""

    def encode_pixels(self, pixels_BCSS: Tensor) -> Matrix:
        """Encode uint8 images of the model's size."""
        ...

    def encode_images(self, images: Sequence[Image.Image]) -> Matrix:
        """Encode images of any size, resized and cropped by the format's own library, or else by open_clip's transform."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        """Encode texts with the exported tokenizer."""
        ...

    def tokenize(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the tokens (B, L) of the exported tokenizer, with any padding."""
        ...


def check_export(
    loaded: LoadedModel, exported: ExportedModel, samples: Samples, options: ExportOptions, *, calibrated: int = 0
) -> ExportCheck:
    """Compare an export with torch. Raises ExportMismatch."""
    pixels_BCSS = to_pixels(samples.checked, loaded.layout.image_size)
    texts = _equally_tokenized(loaded, exported, samples.texts)
    torch_images_BE, torch_texts_BE = torch_embeddings(loaded, pixels_BCSS, texts)
    check = ExportCheck(
        data=samples.source, pictures=len(samples.checked), texts=len(texts),
        texts_read_otherwise=len(samples.texts) - len(texts), calibrated_on=calibrated,
        image=agreement(torch_images_BE, exported.encode_pixels(pixels_BCSS)),
        text=agreement(torch_texts_BE, exported.encode_texts(texts)),
        own_preprocessing=agreement(torch_images_BE, exported.encode_images(samples.checked)),
        tolerance=_tolerance(options),
    )
    _expect_within_tolerance(check)
    return check


def agreement(torch_BE: Matrix, export_BE: Matrix) -> Agreement:
    """Compare embeddings. Raises ExportMismatch if their shapes differ or any is not finite."""
    if export_BE.shape != torch_BE.shape or not np.isfinite(export_BE).all():
        finite = np.isfinite(export_BE).all()
        raise ExportMismatch(f"the export returns {export_BE.shape} embeddings, finite: {finite}; torch returns {torch_BE.shape}")
    cosines_B = (torch_BE.astype(np.float64) * export_BE).sum(axis=1) / np.linalg.norm(export_BE.astype(np.float64), axis=1)
    return Agreement(
        largest_difference=float(np.abs(torch_BE - export_BE).max()),
        mean_cosine=float(cosines_B.mean()),
        least_cosine=float(cosines_B.min()),
    )


@torch.no_grad()
def torch_embeddings(loaded: LoadedModel, pixels_BCSS: Tensor, texts: Sequence[str]) -> tuple[Matrix, Matrix]:
    """Return torch's embeddings of uint8 images and of texts, in fp32."""
    batches = normalize(pixels_BCSS, loaded.image_mean, loaded.image_std).split(BATCH)
    images_BE = F.normalize(torch.cat([loaded.model.encode_image(batch) for batch in batches]), dim=-1)
    return images_BE.numpy(), embed_texts(loaded, texts).numpy()


def _equally_tokenized(loaded: LoadedModel, exported: ExportedModel, texts: Sequence[str]) -> list[str]:
    """Return the texts that both tokenizers turn into the same tokens. Raises ExportMismatch if they are too few."""
    ours_BL, theirs_BL = loaded.tokenizer(list(texts)).numpy(), exported.tokenize(texts)
    read = _up_to_the_end if trims_padding(loaded.model) else _whole
    equal = [text for text, ours, theirs in zip(texts, ours_BL, theirs_BL, strict=True) if read(ours) == read(theirs)]
    if len(equal) < MIN_SAME_TOKENS_SHARE * len(texts):
        differing = f"{len(texts) - len(equal)} of {len(texts)}"
        raise ExportMismatch(f"the exported tokenizer returns other tokens for {differing} texts")
    return equal


def _up_to_the_end(tokens_L: npt.NDArray[np.int64]) -> list[int]:
    """Return the tokens up to and including the end of text, which has the largest id."""
    ids: list[int] = tokens_L[: int(tokens_L.argmax()) + 1].tolist()
    return ids


def _whole(tokens_L: npt.NDArray[np.int64]) -> list[int]:
    ids: list[int] = tokens_L.tolist()
    return ids


def _tolerance(options: ExportOptions) -> ExportTolerance:
    if options.int8:
        return INT8
    return FP32 if options.embedding is EmbeddingType.FP32 else ROUNDED_EMBEDDING


def _expect_within_tolerance(check: ExportCheck) -> None:
    limits = check.tolerance.largest_difference, check.tolerance.mean_cosine
    rounded = check.tolerance.text_mean_cosine
    of_text = limits if rounded is None else (None, rounded)
    for what, found, (most, least) in (("image", check.image, limits), ("text", check.text, of_text)):
        if most is not None and found.largest_difference > most:
            difference = f"{found.largest_difference:.2g}; the tolerance is {most:g}"
            raise ExportMismatch(f"{what} embeddings differ from torch's by up to {difference}")
        if least is not None and found.mean_cosine < least:
            cosine = f"{found.mean_cosine:.4f} to torch's; at least {least:g} is required"
            raise ExportMismatch(f"{what} embeddings have a mean cosine of {cosine}")
    own, required = check.own_preprocessing.mean_cosine, check.tolerance.own_preprocessing_mean_cosine
    if own < required:
        cosine = f"{own:.4f} to torch's; at least {required:g} is required"
        raise ExportMismatch(f"images preprocessed with the exported settings have a mean cosine of {cosine}")
