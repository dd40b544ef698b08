"""Golden queries: images and texts with the model's embeddings at its registration, which a replica checks before it serves.

They detect models that load but give wrong answers: damaged or mixed up weights, a library that computes differently, a faulty
engine. See docs/decisions/0022-rollouts.md.

Shapes: B images, S image size, T texts, E embedding size.
"""

import io
import zipfile
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tinyclip.artifacts.store import ArtifactsStore

from tinyclip_workers.engines.calibration import split_calibration
from tinyclip_workers.engines.protocol import Engine, EngineReport
from tinyclip_workers.engines.torch_engine import TorchEngine
from tinyclip_workers.model.files.folder_files import FILE_SECONDS
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.runtime.filesystems import open_own_store
from tinyclip_workers.types import Matrix, Pixels

GOLDEN_FILE = "golden.npz"
IMAGES = 8
TEXTS = ("a photo of a dog", "a red heart", "a house by the sea", "two people", "food on a plate", "a car", "the moon", "5")
MIN_COSINE = 0.98
"""Lower limit of the mean cosine, of images and of texts, to the stored embeddings. int8 is above 0.99."""


class GoldenMismatch(ValueError):
    """A replica's embeddings differ from those at the model's registration; the message has the cosines."""


@dataclass(frozen=True)
class Golden:
    """The content of the file."""

    pictures_BSSC: Pixels
    texts_T: npt.NDArray[np.str_]
    image_BE: Matrix
    text_TE: Matrix


def encode_golden(loaded: LoadedModel, calibration_BSSC: Pixels) -> bytes:
    """Return the file of a new model: embeddings by torch in fp32 of texts, and of images that int8 is not calibrated on."""
    report = EngineReport(engine="torch", asked="torch", reason="", device="cpu", threads=torch.get_num_threads())
    engine = TorchEngine(loaded, torch.device("cpu"), report)
    pictures_BSSC = split_calibration(calibration_BSSC)[1][:IMAGES]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, pictures_BSSC=pictures_BSSC, texts_T=np.array(TEXTS), image_BE=engine.encode_image(pictures_BSSC),
        text_TE=engine.encode_text(TEXTS),
    )  # fmt: skip
    return buffer.getvalue()


def check_golden_queries(engine: Engine, model_uri: str) -> dict[str, float]:
    """Check an engine against the golden queries of its model's folder; without the file, check that embeddings are finite.

    Returns the mean cosines of images and of texts; nothing without the file.
    Raises GoldenMismatch, and ValueError for a file that cannot be read.
    """
    golden = _read(open_own_store(model_uri, limit_s=FILE_SECONDS))
    if golden is None:
        size = engine.image_size
        for rows in (engine.encode_text(TEXTS), engine.encode_image(np.full((1, size, size, 3), 127, np.uint8))):
            if not np.isfinite(rows).all():
                raise GoldenMismatch(f"{model_uri}: embeddings are not finite numbers; its weights are damaged")
        return {}
    cosines = {
        "images": _mean_cosine(engine.encode_image(golden.pictures_BSSC), golden.image_BE),
        "texts": _mean_cosine(engine.encode_text([str(text) for text in golden.texts_T]), golden.text_TE),
    }
    for kind, cosine in cosines.items():
        if not cosine >= MIN_COSINE:  # NaN fails too
            raise GoldenMismatch(
                f"{model_uri}: with engine {engine.name} its embeddings of {kind} have a mean cosine of {cosine:.3f} to those "
                f"of its registration, less than {MIN_COSINE}"
            )
    return cosines


def _read(store: ArtifactsStore) -> Golden | None:
    if not store.exists(GOLDEN_FILE):
        return None
    try:
        with np.load(io.BytesIO(store.read_bytes(GOLDEN_FILE)), allow_pickle=False) as file:
            return Golden(**{name: file[name] for name in ("pictures_BSSC", "texts_T", "image_BE", "text_TE")})
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{store.uri(GOLDEN_FILE)} cannot be read: {error}") from error


def _mean_cosine(ours: Matrix, stored: Matrix) -> float:
    return float("nan") if ours.shape != stored.shape else float((ours * stored).sum(axis=1).mean())
