"""Export to two ONNX graphs, for ONNX Runtime and other libraries, in fp32 or int8.

    image.onnx   pixel_values (batch, 3, S, S) fp32, normalized -> image_embeds (batch, E), of length 1
    text.onnx    input_ids (batch, tokens) int64                -> text_embeds (batch, E), of length 1

Both are traced from our own towers, so blocks may differ in size. Texts may be truncated to the longest of a batch: padding costs
time and does not change the result.

Shapes: B batch, S image size, L tokens, E embedding size.
"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from tinyclip.errors import MissingExtra
from tinyclip.schemas import EmbeddingType, ExportOptions, Layout
from torch import Tensor, nn
from torch.export import Dim

from tinyclip_workers.exporting.check import BATCH
from tinyclip_workers.exporting.embedding import towers_with_embedding
from tinyclip_workers.exporting.samples import Samples
from tinyclip_workers.exporting.settings import read_settings, write_settings
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.preprocessing import normalize
from tinyclip_workers.model.towers import Model, encode_tokens, trims_padding
from tinyclip_workers.types import Matrix

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is imported; it would send usage data
try:
    import onnxruntime as ort
    import onnxscript  # noqa: F401 -- required by torch's exporter

    from tinyclip_workers.exporting.formats.onnx_int8 import quantize_convolutions, quantize_matmuls
except ImportError as error:
    raise MissingExtra("export", "onnxruntime") from error

IMAGE, TEXT = "image.onnx", "text.onnx"
OPSET = 18
LARGEST_FILE = 1_900_000_000
"""A protobuf is limited to 2 GiB; the weights of a larger tower are written to a separate file."""


def export_onnx(loaded: LoadedModel, folder: Path, samples: Samples, options: ExportOptions) -> int:
    """Write graphs, settings and tokenizer; return the number of images that int8 was calibrated with.

    Matrix products compute their scales at run time, the token embedding has one for each row: neither needs calibration. The
    convolutions of a ResNet have fixed scales, calibrated with images.
    """
    rounded = options.int8 and isinstance(loaded.layout, Layout)  # the table of a library's model stays as it is
    write_graphs(loaded, folder, EmbeddingType.INT8 if rounded else options.embedding)
    write_settings(loaded, folder)
    if not options.int8:
        return 0
    quantize_matmuls(folder / TEXT)
    if loaded.layout.is_vit:
        quantize_matmuls(folder / IMAGE)
        return 0
    quantize_convolutions(folder / IMAGE, loaded, samples.calibration)
    return len(samples.calibration)


def write_graphs(loaded: LoadedModel, folder: Path, embedding: EmbeddingType) -> None:
    """Trace both towers in fp32, the token embedding in another type if it is to have one."""
    towers, size = towers_with_embedding(loaded, embedding), loaded.layout.image_size
    batch, tokens = Dim("batch"), Dim("tokens", max=loaded.layout.context_length)
    _write(_Image(towers), torch.zeros(2, 3, size, size), {0: batch}, ("pixel_values", "image_embeds"), folder / IMAGE)
    example_BL, lengths = loaded.tokenizer(["a", "b c"]), {0: batch}
    if trims_padding(loaded.model):
        example_BL, lengths = example_BL[:, :5].contiguous(), {0: batch, 1: tokens}
    _write(_Text(towers), example_BL, lengths, ("input_ids", "text_embeds"), folder / TEXT)


class OnnxModel:
    """An exported folder in ONNX Runtime, on the CPU."""

    def __init__(self, folder: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._image, self._text = (
            ort.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"]) for name in (IMAGE, TEXT)
        )
        self._settings = read_settings(folder)

    def encode_pixels(self, pixels_BCSS: Tensor) -> Matrix:
        return self._encode_normalized(normalize(pixels_BCSS, tuple(self._settings.mean), tuple(self._settings.std)))

    def encode_images(self, images: Sequence[Image.Image]) -> Matrix:
        return self._encode_normalized(torch.stack([self._settings.transform(image) for image in images]))

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        texts_BE: Matrix = self._text.run(None, {"input_ids": self.tokenize(texts)})[0]
        return texts_BE

    def tokenize(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        return self._settings.tokenize(texts)

    def _encode_normalized(self, pixel_values_BCSS: Tensor) -> Matrix:
        batches = pixel_values_BCSS.split(BATCH)
        return np.concatenate([self._image.run(None, {"pixel_values": batch.numpy()})[0] for batch in batches])


class _Image(nn.Module):
    def __init__(self, towers: Model) -> None:
        super().__init__()
        self.towers = towers

    def forward(self, pixel_values: Tensor) -> Tensor:
        return F.normalize(self.towers.encode_image(pixel_values), dim=-1)


class _Text(nn.Module):
    def __init__(self, towers: Model) -> None:
        super().__init__()
        self.towers = towers

    def forward(self, input_ids: Tensor) -> Tensor:
        return F.normalize(encode_tokens(self.towers, input_ids), dim=-1)


def _write(module: nn.Module, example: Tensor, dynamic: dict[int, Any], names: tuple[str, str], path: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch warns about its own code
        program = torch.onnx.export(
            module.eval(), (example,), dynamo=True, input_names=[names[0]], output_names=[names[1]],
            dynamic_shapes=(dynamic,), opset_version=OPSET, verbose=False,
        )
    assert program is not None, "the dynamo exporter returns a program"
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # paths of the source files that were traced
    size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    program.save(path, external_data=size > LARGEST_FILE)
