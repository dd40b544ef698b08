"""ONNX graphs in int8, by ONNX Runtime's quantiser.

Shapes: B batch, C channels, S image size.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image
from torch import Tensor

from tinyclip_workers.export_samples import pixels
from tinyclip_workers.images import normalize
from tinyclip_workers.model_folder import LoadedModel

CALIBRATION_BATCH = 8


def quantise_products(path: Path) -> None:
    """Weights of matrix products in int8, one scale a channel; activations are scaled as they come."""
    _dynamic(path, ["MatMul", "Gemm"])


def quantise_table(path: Path) -> None:
    """The table of token embeddings in int8, most of a small text tower; nothing else."""
    _dynamic(path, ["Gather"])


def quantise_static(path: Path, loaded: LoadedModel, pictures: Sequence[Image.Image]) -> None:
    """Weights and activations in int8 with fixed scales, from what the pictures make of them."""
    prepared = _prepared(path)
    quantize_static(
        prepared, path, _Calibration(loaded, pictures), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )
    prepared.unlink()


def _dynamic(path: Path, operators: list[str]) -> None:
    prepared = _prepared(path)
    quantize_dynamic(prepared, path, op_types_to_quantize=operators, per_channel=True, weight_type=QuantType.QInt8)
    prepared.unlink()


def _prepared(path: Path) -> Path:
    """The graph with its shapes inferred and fused where it can be, in a file beside it."""
    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    return prepared


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Pictures as calibration asks for them: one batch after another, then null."""

    def __init__(self, loaded: LoadedModel, pictures: Sequence[Image.Image]) -> None:
        pixels_BCSS = pixels(pictures, loaded.layout.image.image_size)
        batches = normalize(pixels_BCSS, loaded.image_mean, loaded.image_std).split(CALIBRATION_BATCH)
        self._batches: Iterator[Tensor] = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch_BCSS = next(self._batches, None)
        return None if batch_BCSS is None else {"pixel_values": batch_BCSS.numpy()}
