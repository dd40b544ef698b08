"""Golden queries: what a model answered when it was registered, kept with it. A replica asks itself the same before it serves.

They catch what starts well and answers nonsense: weights that were damaged or mixed up, a library that computes differently, an
engine gone wrong. docs/decisions/0022-rollouts.md has the story.

Shapes: B pictures, S image size, T texts, E embedding size.
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
from tinyclip_workers.model.folders import LoadedModel
from tinyclip_workers.runtime.filesystems import open_store
from tinyclip_workers.types import Matrix, Pixels

GOLDEN_FILE = "golden.npz"
PICTURES = 8
TEXTS = ("a photo of a dog", "a red heart", "a house by the sea", "two people", "food on a plate", "a car", "the moon", "5")
LEAST_COSINE = 0.98
"""Mean, of pictures and of texts, between a replica's embeddings and those that are kept. int8 is above 0.99."""


class GoldenMismatch(ValueError):
    """A replica answers other than its model did when it was registered; the message has the numbers."""


@dataclass(frozen=True)
class Golden:
    pictures_BSSC: Pixels
    texts_T: npt.NDArray[np.str_]
    image_BE: Matrix
    text_TE: Matrix


def encode_golden(loaded: LoadedModel, calibration_BSSC: Pixels) -> bytes:
    """The file of a model just trained: torch's embeddings in fp32 of a few pictures, none of which int8 is calibrated on."""
    report = EngineReport(engine="torch", asked="torch", reason="", device="cpu", threads=torch.get_num_threads())
    engine = TorchEngine(loaded, torch.device("cpu"), report)
    pictures_BSSC = split_calibration(calibration_BSSC)[1][:PICTURES]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, pictures_BSSC=pictures_BSSC, texts_T=np.array(TEXTS), image_BE=engine.encode_image(pictures_BSSC),
        text_TE=engine.encode_text(TEXTS),
    )  # fmt: skip
    return buffer.getvalue()


def check_golden_queries(engine: Engine, model_uri: str) -> dict[str, float]:
    """Ask an engine the golden queries of its model's folder; without the file, see that its answers are numbers at all.

    Returns the mean cosine of pictures and of texts; nothing without the file.

    Raises GoldenMismatch, and ValueError for a file that cannot be read.
    """
    golden = _read(open_store(model_uri))
    if golden is None:
        size = engine.image_size
        for answers in (engine.encode_text(TEXTS), engine.encode_image(np.full((1, size, size, 3), 127, np.uint8))):
            if not np.isfinite(answers).all():
                raise GoldenMismatch(f"{model_uri}: embeddings are not finite numbers; its weights are damaged")
        return {}
    cosines = {
        "pictures": _cosine(engine.encode_image(golden.pictures_BSSC), golden.image_BE),
        "texts": _cosine(engine.encode_text([str(text) for text in golden.texts_T]), golden.text_TE),
    }
    for what, cosine in cosines.items():
        if not cosine >= LEAST_COSINE:  # NaN is not either
            raise GoldenMismatch(
                f"{model_uri}: with engine {engine.name} its embeddings of {what} have a mean cosine of {cosine:.3f} to those "
                f"of its registration, less than {LEAST_COSINE}"
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


def _cosine(ours: Matrix, kept: Matrix) -> float:
    return float("nan") if ours.shape != kept.shape else float((ours * kept).sum(axis=1).mean())
