"""ONNX graphs in int8, by ONNX Runtime's quantiser.

Shapes: B batch, C channels, S image size.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image
from torch import Tensor

from tinyclip_workers.exporting.samples import pixels
from tinyclip_workers.model.folders import LoadedModel
from tinyclip_workers.model.preprocessing import normalize
from tinyclip_workers.model.towers import RESNET_STEM

BLOCK = 32
CALIBRATION_BATCH = 8

for _chatty in ("onnxruntime.quantization.matmul_nbits_quantizer", "onnx_ir", "onnxscript"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)  # a line an operator


def quantise_products(path: Path) -> None:
    """Matrix products with int8 weights and activations, one scale for BLOCK numbers of a row: what else is in a batch makes no
    difference, as it would with one scale a tensor. An operator of ONNX Runtime's own."""
    prepared = _prepared(path)
    quantiser = MatMulNBitsQuantizer(
        onnx.load(prepared), bits=8, block_size=BLOCK, is_symmetric=True, accuracy_level=4, op_types_to_quantize=("MatMul",)
    )
    quantiser.process()
    quantiser.model.save_model_to_file(str(path))
    prepared.unlink()


def quantise_table(path: Path) -> None:
    """The table of token embeddings in int8, most of a small text tower."""
    prepared = _prepared(path)
    quantize_dynamic(prepared, path, op_types_to_quantize=["Gather"], weight_type=QuantType.QInt8)
    prepared.unlink()


def quantise_convolutions(path: Path, loaded: LoadedModel, pictures: Sequence[Image.Image]) -> None:
    """Convolutions of a ResNet in int8 with fixed scales, from what the pictures make of them. Its first ones, the stem, and its
    attention pool are few and cost the most accuracy: they stay as they are."""
    prepared = _prepared(path)
    stem = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"][:RESNET_STEM]
    quantize_static(
        prepared, path, _Calibration(loaded, pictures), quant_format=QuantFormat.QDQ, per_channel=True, nodes_to_exclude=stem,
        op_types_to_quantize=["Conv", "Relu", "AveragePool"], activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )
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
