"""Build the engines of a loaded model: torch directly, OpenVINO from a conversion that is cached on this machine's disk."""

import hashlib
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from tinyclip.schemas.deployments import EngineName

from tinyclip_workers.engines.cache import default_folder, get_or_create
from tinyclip_workers.engines.calibration import CALIBRATION_FILE, MIN_CALIBRATION_IMAGES, split_calibration
from tinyclip_workers.engines.protocol import Engine, EngineReport
from tinyclip_workers.engines.torch_engine import TorchEngine
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.types import Pixels

log = logging.getLogger(__name__)

EXACT = ("torch", "openvino")
"""Engines that compute in fp32; the others round."""
ON_CPU: tuple[EngineName, ...] = ("torch", "torch-bf16", "openvino", "openvino-bf16", "openvino-int8")
ON_CUDA: tuple[EngineName, ...] = ("torch", "torch-bf16")
_CONVERTED_BY = ("tinyclip", "torch", "openvino", "nncf")
_FORMAT = 2
"""Version of the conversions; increment it when a change in `openvino_engine` changes them."""


@dataclass
class EngineBuilder:
    """A loaded model, and the settings that its engines are built with."""

    loaded: LoadedModel
    calibration_images: Pixels | None
    """The version's own (`calibration.read_calibration`)."""
    threads: int = 1
    cache: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def build(self, name: EngineName, report: EngineReport) -> Engine:
        """Build an engine. Raises MissingExtra, and ValueError for int8 without calibration images."""
        if name in ON_CUDA:
            return TorchEngine(self.loaded, self.device, report, bf16=name == "torch-bf16")
        from tinyclip_workers.engines.openvino_engine import OpenVinoEngine  # an extra; raises MissingExtra

        image, text = self._converted(name)
        return OpenVinoEngine(self.loaded, image, text, report, threads=self.threads, bf16=name == "openvino-bf16")

    def converted_bytes(self, name: EngineName) -> int:
        """Return the bytes of the weights of both towers that an engine of OpenVINO reads. Raises as `build`."""
        return sum(path.with_suffix(".bin").stat().st_size for path in self._converted(name))

    def report(self, name: str, asked: str, reason: str = "") -> EngineReport:
        device = self.device.type if name in ON_CUDA else "cpu"
        return EngineReport(engine=name, asked=asked, reason=reason, device=device, threads=self.threads)

    def converted_towers(self) -> Path:
        """Convert both towers, if the cache has no conversion yet. Return the folder of image.xml and text.xml."""
        from tinyclip_workers.engines.openvino_engine import convert_image_tower, convert_text_tower, save_model

        def convert(folder: Path) -> None:
            save_model(convert_image_tower(self.loaded), folder / "image.xml")
            save_model(convert_text_tower(self.loaded), folder / "text.xml")

        return self._cached({"made": "towers"}, convert)

    def _converted(self, name: EngineName) -> tuple[Path, Path]:
        """Return the image tower and the text tower of an engine of OpenVINO."""
        if name == "openvino-int8" and self.calibration_images is None:
            raise ValueError(
                f"{self.loaded.name} has no {CALIBRATION_FILE} with at least {MIN_CALIBRATION_IMAGES} images, "
                "which int8 is calibrated on; use engine auto or openvino, or train the version again"
            )
        towers = self.converted_towers()
        image = self._quantized_image_tower(towers) if name == "openvino-int8" else towers / "image.xml"
        return image, towers / "text.xml"

    def _quantized_image_tower(self, towers: Path) -> Path:
        from tinyclip_workers.engines.openvino_engine import quantize_image_tower, read_model, save_model

        assert self.calibration_images is not None, "_converted checks it"
        images, transformer = split_calibration(self.calibration_images)[0], self.loaded.layout.is_vit

        def quantize(folder: Path) -> None:
            model = quantize_image_tower(read_model(towers / "image.xml"), images, transformer=transformer)
            save_model(model, folder / "image.xml")

        return self._cached({"made": "int8", "pictures": hashlib.sha256(images.tobytes()).hexdigest()}, quantize) / "image.xml"

    def _cached(self, conversion: dict[str, object], convert: Callable[[Path], None]) -> Path:
        """Return the folder of a conversion of this model by these versions of the libraries; a temporary one without a cache."""
        colors = [*self.loaded.image_mean, *self.loaded.image_std]
        layout = self.loaded.layout.model_dump(mode="json")
        key = {**conversion, "weights": self.loaded.digest, "layout": layout, "colors": colors}
        key |= {"format": _FORMAT, **{name: _installed_version(name) for name in _CONVERTED_BY}}
        try:
            return get_or_create(self.cache or default_folder(), key, convert)
        except OSError as error:
            log.warning("cannot cache converted models, each start converts again: %s", error)
            folder = Path(tempfile.mkdtemp(prefix="tinyclip-engine-"))
            convert(folder)
            return folder


def _installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
