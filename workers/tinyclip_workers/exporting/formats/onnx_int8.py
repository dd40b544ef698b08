"""Quantize ONNX graphs to int8 with ONNX Runtime.

Shapes: B batch, C channels, S image size.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image
from torch import Tensor

from tinyclip_workers.exporting.samples import to_pixels
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.preprocessing import normalize
from tinyclip_workers.model.towers import RESNET_STEM

BLOCK = 32
CALIBRATION_BATCH = 8

for _verbose in ("onnxruntime.quantization.matmul_nbits_quantizer", "onnx_ir", "onnxscript"):
    logging.getLogger(_verbose).setLevel(logging.WARNING)  # they log a line per operator


def quantize_matmuls(path: Path) -> None:
    """Quantize the weights and activations of matrix products, with an operator of ONNX Runtime.

    It has one scale per BLOCK numbers of a row. Unlike with one scale per tensor, a result does not depend on its batch.
    """
    prepared = _preprocess(path)
    quantizer = MatMulNBitsQuantizer(
        onnx.load(prepared), bits=8, block_size=BLOCK, is_symmetric=True, accuracy_level=4, op_types_to_quantize=("MatMul",)
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(path))
    prepared.unlink()


def quantize_convolutions(path: Path, loaded: LoadedModel, images: Sequence[Image.Image]) -> None:
    """Quantize the convolutions of a ResNet with fixed scales, calibrated with images.

    The first ones, the stem, and the attention pool stay in fp32: they are few and cost the most accuracy.
    """
    prepared = _preprocess(path)
    stem = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"][:RESNET_STEM]
    quantize_static(
        prepared, path, _Calibration(loaded, images), quant_format=QuantFormat.QDQ, per_channel=True, nodes_to_exclude=stem,
        op_types_to_quantize=["Conv", "Relu", "AveragePool"], activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )
    prepared.unlink()


def _preprocess(path: Path) -> Path:
    """Infer shapes and fuse operators, into a second file."""
    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    return prepared


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Batches of normalized images."""

    def __init__(self, loaded: LoadedModel, images: Sequence[Image.Image]) -> None:
        pixels_BCSS = to_pixels(images, loaded.layout.image_size)
        batches = normalize(pixels_BCSS, loaded.image_mean, loaded.image_std).split(CALIBRATION_BATCH)
        self._batches: Iterator[Tensor] = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch; None after the last."""
        batch_BCSS = next(self._batches, None)
        return None if batch_BCSS is None else {"pixel_values": batch_BCSS.numpy()}
