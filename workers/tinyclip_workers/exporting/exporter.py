"""Write an export, load it again and check it. The libraries of a format are imported when it is requested."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path

from tinyclip.schemas import ExportDocument, ExportFormat, ExportOptions, ModelFile, VocabularyReport
from tinyclip.schemas.exports import PLAIN, unavailable_formats

from tinyclip_workers.exporting.check import ExportedModel, check_export
from tinyclip_workers.exporting.samples import Samples
from tinyclip_workers.model.files.folders import LoadedModel

LIBRARIES = {
    ExportFormat.ONNX: ("onnx", "onnxscript", "onnxruntime"),
    ExportFormat.OPENVINO: ("openvino", "nncf"),
    ExportFormat.HF: ("transformers",),
    ExportFormat.OPEN_CLIP: ("open_clip_torch",),
    ExportFormat.TINYCLIP: ("open_clip_torch",),
}


class FormatNotAvailable(ValueError):
    """A format that cannot represent this model; the message explains why and lists those that can."""


Write = Callable[[LoadedModel, Path, Samples, ExportOptions], int]
"""Writes an export into a folder; returns the number of images that int8 was calibrated with."""


@dataclass(frozen=True)
class FormatFunctions:
    """The functions that write and load a format."""

    write: Write
    load: Callable[[Path], ExportedModel]


def create_export(
    loaded: LoadedModel, format: ExportFormat, folder: Path, samples: Samples, options: ExportOptions = PLAIN, *,
    reduction: VocabularyReport | None = None, report: Callable[[float, str], None] = lambda fraction, message: None,
) -> ExportDocument:
    """Write an export into an empty local folder, load it again and check it. `report` receives the progress.

    `reduction`: how the vocabulary of `loaded` was reduced, if it was.
    Raises FormatNotAvailable, MissingExtra, ExportMismatch, or what the format's library raises.
    """
    reasons = unavailable_formats(loaded.layout)
    if format in reasons:
        available = ", ".join(each for each in ExportFormat if each not in reasons)
        raise FormatNotAvailable(f"{loaded.name} has no {format} export: {reasons[format]}; it has {available}")
    functions = format_functions(format)
    report(0.1, "writing")
    calibrated = functions.write(loaded, folder, samples, options)
    report(0.6, "checking")
    check = check_export(loaded, functions.load(folder), samples, options, calibrated=calibrated)
    report(0.9, "saving")
    return ExportDocument(
        model=loaded.name, format=format, int8=options.int8, vocabulary=options.vocabulary, embedding=options.embedding,
        reduction=reduction, files=_files(folder), check=check,
        made_with={name: installed(name) for name in ("tinyclip", "torch", *LIBRARIES[format])}, created_at=datetime.now(UTC),
    )


def format_functions(format: ExportFormat) -> FormatFunctions:
    """Import the module of a format. Raises MissingExtra."""
    if format is ExportFormat.ONNX:
        from tinyclip_workers.exporting.formats.onnx import OnnxModel, export_onnx

        return FormatFunctions(export_onnx, OnnxModel)
    if format is ExportFormat.OPENVINO:
        from tinyclip_workers.exporting.formats.openvino import OpenVinoModel, export_openvino

        return FormatFunctions(export_openvino, OpenVinoModel)
    if format is ExportFormat.HF:
        from tinyclip_workers.exporting.formats.transformers import HfModel, export_hf

        return FormatFunctions(_uncalibrated(export_hf), HfModel)
    if format is ExportFormat.TINYCLIP:
        from tinyclip_workers.exporting.formats.tinyclip import TinyClipModel, export_tinyclip

        return FormatFunctions(_uncalibrated(export_tinyclip), TinyClipModel)
    from tinyclip_workers.exporting.formats.open_clip import OpenClipModel, export_open_clip

    return FormatFunctions(_uncalibrated(export_open_clip), OpenClipModel)


def _uncalibrated(write: Callable[[LoadedModel, Path, ExportOptions], None]) -> Write:
    def write_uncalibrated(loaded: LoadedModel, folder: Path, samples: Samples, options: ExportOptions) -> int:
        assert not options.int8, "only QUANTISABLE formats have int8"
        write(loaded, folder, options)
        return 0

    return write_uncalibrated


def _files(folder: Path) -> list[ModelFile]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        ModelFile(path=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, sha256=_sha256(path)) for path in paths
    ]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
