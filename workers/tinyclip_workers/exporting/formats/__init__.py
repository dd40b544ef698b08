"""The formats by name: who writes each, and how it is loaded again. Their libraries are imported when one is asked for."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path

from tinyclip.schemas import ExportDocument, ExportFormat, ModelFile
from tinyclip.schemas.exports import unavailable_formats

from tinyclip_workers.exporting.check import Opened, check_export
from tinyclip_workers.exporting.samples import Samples
from tinyclip_workers.model.folders import LoadedModel

LIBRARIES = {
    ExportFormat.ONNX: ("onnx", "onnxscript", "onnxruntime"),
    ExportFormat.OPENVINO: ("openvino", "nncf"),
    ExportFormat.HF: ("transformers",),
    ExportFormat.OPEN_CLIP: ("open_clip_torch",),
}


class NotAvailable(ValueError):
    """A format that this model does not have; the message says why and which there are."""


Write = Callable[[LoadedModel, Path, Samples, bool], int]
"""Writes an export, int8 or not, into a folder; returns how many pictures int8 was calibrated on."""


def make_export(
    loaded: LoadedModel, format: ExportFormat, folder: Path, samples: Samples, *, int8: bool = False,
    tell: Callable[[float, str], None] = lambda fraction, message: None,
) -> ExportDocument:
    """Write an export into an empty local folder, load it again and check it. `tell` hears of the progress.

    Raises NotAvailable, MissingExtra, ExportOff, or what the format's library raises.
    """
    if format in (why := unavailable_formats(loaded.layout)):
        has = ", ".join(each for each in ExportFormat if each not in why)
        raise NotAvailable(f"{loaded.name} has no {format} export: {why[format]}; it has {has}")
    write, opened = writer_and_reader(format)
    tell(0.1, "writing")
    calibrated = write(loaded, folder, samples, int8)
    tell(0.6, "checking")
    check = check_export(loaded, opened(folder), samples, int8=int8, calibrated=calibrated)
    tell(0.9, "keeping")
    return ExportDocument(
        model=loaded.name, format=format, int8=int8, files=_files(folder), check=check,
        made_with={name: installed(name) for name in ("tinyclip", "torch", *LIBRARIES[format])}, created_at=datetime.now(UTC),
    )


def writer_and_reader(format: ExportFormat) -> tuple[Write, Callable[[Path], Opened]]:
    """Raises MissingExtra."""
    if format is ExportFormat.ONNX:
        from tinyclip_workers.exporting.formats.onnx import OnnxModel, export_onnx

        return export_onnx, OnnxModel
    if format is ExportFormat.OPENVINO:
        from tinyclip_workers.exporting.formats.openvino import OpenVinoModel, export_openvino

        return export_openvino, OpenVinoModel
    if format is ExportFormat.HF:
        from tinyclip_workers.exporting.formats.transformers import HfModel, export_hf

        return _in_fp32(export_hf), HfModel
    from tinyclip_workers.exporting.formats.open_clip import OpenClipModel, export_open_clip

    return _in_fp32(export_open_clip), OpenClipModel


def _in_fp32(write: Callable[[LoadedModel, Path], None]) -> Write:
    """A format that has no int8; it is not asked for one."""

    def written(loaded: LoadedModel, folder: Path, samples: Samples, int8: bool) -> int:
        assert not int8, "only QUANTISABLE formats have int8"
        write(loaded, folder)
        return 0

    return written


def _files(folder: Path) -> list[ModelFile]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        ModelFile(path=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, sha256=_digest(path)) for path in found
    ]


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
