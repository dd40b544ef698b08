"""Exports of model versions to the formats of other libraries."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import Field

from tinyclip.schemas._base import Request, Response, Timestamp
from tinyclip.schemas.layouts import AnyLayout, Architecture
from tinyclip.schemas.models import ModelFile
from tinyclip.schemas.vocabulary import CLIP_TOKENS, EmbeddingType, VocabularyChoice, VocabularyReport


class ExportFormat(StrEnum):
    ONNX = "onnx"
    """Two graphs for ONNX Runtime and others."""
    OPENVINO = "openvino"
    HF = "hf"
    """transformers' `CLIPModel` and `CLIPProcessor`."""
    OPEN_CLIP = "open_clip"
    TINYCLIP = "tinyclip"
    """The files of a version, which `models import` reads, as do `local-dir:` teachers."""


@dataclass(frozen=True)
class ExportOptions:
    """Settings of an export beside its format."""

    int8: bool = False
    """Quantise the towers; for the formats that can be quantised, `onnx` and `openvino`."""
    vocabulary: VocabularyChoice = VocabularyChoice.WHOLE
    embedding: EmbeddingType = EmbeddingType.FP32


PLAIN = ExportOptions()
"""No changes."""


class ExportPost(Request):
    """A request for exports; the fields beside `formats` are those of `ExportOptions`."""

    formats: list[ExportFormat] = Field(min_length=1, max_length=len(ExportFormat))
    int8: bool = False
    vocabulary: VocabularyChoice = VocabularyChoice.WHOLE
    embedding: EmbeddingType = EmbeddingType.FP32

    @property
    def options(self) -> ExportOptions:
        """The options without the formats."""
        return ExportOptions(self.int8, self.vocabulary, self.embedding)


class ExportState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DELETING = "deleting"

    @property
    def terminal(self) -> bool:
        """True when the export has its files, or the reason why there are none."""
        return self in (ExportState.SUCCEEDED, ExportState.FAILED)


ExportAction = Literal["retry", "delete"]
"""`retry`: to request it again."""


class ExportError(Response):
    code: str
    message: str


class Agreement(Response):
    """The difference of an export's embeddings from torch's; both are of length 1."""

    largest_difference: float
    """The largest of all numbers of all embeddings."""
    mean_cosine: float
    least_cosine: float


class ExportTolerance(Response):
    """The tolerated difference; null: any."""

    largest_difference: float | None = None
    mean_cosine: float | None = None
    own_preprocessing_mean_cosine: float
    text_mean_cosine: float | None = None
    """For texts instead of the first two, where only the token embedding is rounded."""


class ExportCheck(Response):
    """The comparison of an export, loaded as its users do, with torch in fp32."""

    data: str
    """The origin of images and texts."""
    pictures: int
    texts: int
    texts_read_otherwise: int = 0
    """Texts left out of the comparison: the exported tokenizer does not normalise their unusual characters."""
    calibrated_on: int = 0
    """Images that an int8 export was calibrated on; none is among those of the comparison."""
    image: Agreement
    """Image embeddings of the same pixels."""
    text: Agreement
    """Text embeddings with the exported tokenizer."""
    own_preprocessing: Agreement
    """Image embeddings with the exported preprocessing: transformers' processor, else open_clip's transform."""
    tolerance: ExportTolerance


class ExportDocument(Response):
    """`export.json` beside an export's files. It is written last: files without it are not an export."""

    model: str
    format: ExportFormat
    int8: bool
    vocabulary: VocabularyChoice = VocabularyChoice.WHOLE
    embedding: EmbeddingType = EmbeddingType.FP32
    reduction: VocabularyReport | None = None
    """With a reduced vocabulary."""
    files: list[ModelFile]
    """With paths relative to the export's folder."""
    check: ExportCheck
    made_with: dict[str, str] = {}
    """Versions of the libraries that wrote it."""
    created_at: Timestamp


class Export(Response):
    """One export of one model version."""

    name: str
    """For example `onnx` or `onnx-int8`; its files are the version's files below `exports/NAME/`."""
    model: str
    format: ExportFormat
    int8: bool
    vocabulary: VocabularyChoice = VocabularyChoice.WHOLE
    embedding: EmbeddingType = EmbeddingType.FP32
    state: ExportState
    progress: float = 0.0
    message: str = ""
    files: list[ModelFile] = []
    check: ExportCheck | None = None
    reduction: VocabularyReport | None = None
    """With a reduced vocabulary."""
    error: ExportError | None = None
    ray_submission_id: str | None
    actions: list[ExportAction] = []
    """What the state allows to the caller now."""
    created_at: Timestamp
    updated_at: Timestamp
    finished_at: Timestamp | None


QUANTISABLE = (ExportFormat.ONNX, ExportFormat.OPENVINO)
"""Formats with int8 exports."""
INT8_EMBEDDINGS = (ExportFormat.ONNX, ExportFormat.OPENVINO, ExportFormat.TINYCLIP)
"""Formats that can express a token embedding in int8 with a scale for each row."""
EXPORTS = "exports"
"""The folder of exports in a version's folder."""


def export_name(format: ExportFormat, options: ExportOptions = PLAIN) -> str:
    """Return `onnx`, `onnx-int8` or `onnx-reduced-embedding-int8`, for example."""
    parts = ["int8"] * options.int8 + ["reduced"] * (options.vocabulary is VocabularyChoice.REDUCED)
    parts += [f"embedding-{options.embedding}"] * (options.embedding is not EmbeddingType.FP32)
    return "-".join([format, *parts])


def unavailable_formats(layout: AnyLayout) -> dict[ExportFormat, str]:
    """Return the formats that do not support a model of this layout, and why."""
    if isinstance(layout, Architecture):
        return {ExportFormat.HF: f"it is a {layout.family} of open_clip, and transformers names its towers otherwise"}
    if layout.is_siglip:
        why = "its towers are like SigLIP's in sizes of their own, which that library does not support"
        return {ExportFormat.HF: why, ExportFormat.OPEN_CLIP: why}
    if not layout.is_uniform:
        why = "its blocks differ in size, which that library does not support"
        return {ExportFormat.HF: why, ExportFormat.OPEN_CLIP: why}
    if layout.image.kind == "resnet":
        return {ExportFormat.HF: "its image tower is a ResNet, and transformers' CLIPModel has none"}
    return {}


def unavailable_option(layout: AnyLayout, format: ExportFormat, options: ExportOptions) -> tuple[str, str] | None:
    """Return the first option that is not available for a format and a model, and why; None if all are."""
    if isinstance(layout, Architecture):
        why = f"the text tower of a {layout.family} is exported as it is"
        if options.vocabulary is VocabularyChoice.REDUCED:
            return "vocabulary", f"{why}; omit vocabulary"
        if options.embedding is not EmbeddingType.FP32:
            return "embedding", f"{why}; omit embedding"
    if options.int8 and format not in QUANTISABLE:
        return "int8", f"{format} has no int8; omit int8, or export to {' or '.join(QUANTISABLE)}"
    if options.embedding is EmbeddingType.INT8 and format not in INT8_EMBEDDINGS:
        others = " or ".join(INT8_EMBEDDINGS)
        return "embedding", f"{format} has no token embedding in int8; use fp16, or export to {others}"
    if options.vocabulary is VocabularyChoice.REDUCED and layout.vocab_size != CLIP_TOKENS:
        why = f"only the {CLIP_TOKENS:,} tokens of CLIP can be reduced, the model has {layout.vocab_size:,}"
        return "vocabulary", f"{why}; omit vocabulary"
    return None
