"""Makes engines of a loaded model: torch's at once, OpenVINO's by a conversion that is kept on this machine's disk."""

import hashlib
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from tinyclip.schemas.deployments import EngineName

from tinyclip_workers.engines.cache import cached, default_folder
from tinyclip_workers.engines.calibration import CALIBRATION_FILE, LEAST, divided
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.engines.report import EngineReport
from tinyclip_workers.engines.torch_engine import TorchEngine
from tinyclip_workers.model.folders import LoadedModel
from tinyclip_workers.types import Pixels

log = logging.getLogger(__name__)

EXACT = ("torch", "openvino")
ON_CPU: tuple[EngineName, ...] = ("torch", "torch-bf16", "openvino", "openvino-bf16", "openvino-int8")
ON_CUDA: tuple[EngineName, ...] = ("torch", "torch-bf16")
_CONVERTED_BY = ("tinyclip", "torch", "openvino", "nncf")
_FORMAT = 2
"""Of conversions; a change in `openvino_model` that changes them counts it up."""


@dataclass
class Workshop:
    """What engines are made from."""

    loaded: LoadedModel
    pictures: Pixels | None
    """The version's calibration pictures."""
    threads: int = 1
    cache: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def build(self, name: EngineName, report: EngineReport) -> Engine:
        """Raises MissingExtra, and ValueError for int8 without pictures."""
        if name in ON_CUDA:
            return TorchEngine(self.loaded, self.device, report, bf16=name == "torch-bf16")
        from tinyclip_workers.engines.openvino_engine import OpenVinoEngine  # an extra; raises MissingExtra

        if name == "openvino-int8" and self.pictures is None:
            raise ValueError(
                f"{self.loaded.name} has no {CALIBRATION_FILE} with at least {LEAST} pictures, which int8 is calibrated on; "
                "take engine auto or openvino, or a version that was trained since there is such a file"
            )
        towers = self._converted()
        image = self._quantized(towers) if name == "openvino-int8" else towers / "image.xml"
        bf16 = name == "openvino-bf16"
        return OpenVinoEngine(self.loaded, image, towers / "text.xml", report, threads=self.threads, bf16=bf16)

    def report(self, name: str, asked: str, reason: str = "") -> EngineReport:
        device = self.device.type if name in ON_CUDA else "cpu"
        return EngineReport(engine=name, asked=asked, reason=reason, device=device, threads=self.threads)

    def _converted(self) -> Path:
        """Folder of image.xml and text.xml."""
        from tinyclip_workers.engines import openvino_model as ir

        def convert(folder: Path) -> None:
            ir.save_model(ir.convert_image_tower(self.loaded), folder / "image.xml")
            ir.save_model(ir.convert_text_tower(self.loaded), folder / "text.xml")

        return self._cached({"made": "towers"}, convert)

    def _quantized(self, towers: Path) -> Path:
        from tinyclip_workers.engines import openvino_model as ir

        assert self.pictures is not None  # build has seen to it
        pictures, transformer = divided(self.pictures)[0], self.loaded.layout.image.kind == "vit"

        def quantize(folder: Path) -> None:
            model = ir.read_model(towers / "image.xml")
            ir.save_model(ir.quantize_image_tower(model, pictures, transformer=transformer), folder / "image.xml")

        return self._cached({"made": "int8", "pictures": hashlib.sha256(pictures.tobytes()).hexdigest()}, quantize) / "image.xml"

    def _cached(self, what: dict[str, object], make: Callable[[Path], None]) -> Path:
        colors = [*self.loaded.image_mean, *self.loaded.image_std]
        key = {**what, "weights": self.loaded.digest, "layout": self.loaded.layout.model_dump(mode="json"), "colors": colors}
        key |= {"format": _FORMAT, **{name: _installed(name) for name in _CONVERTED_BY}}
        try:
            return cached(self.cache or default_folder(), key, make)
        except OSError as error:
            log.warning("converted models are not kept, each start converts again: %s", error)
            folder = Path(tempfile.mkdtemp(prefix="tinyclip-engine-"))
            make(folder)
            return folder


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
