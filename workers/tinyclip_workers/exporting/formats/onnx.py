"""A version as two ONNX graphs, for ONNX Runtime and whatever else reads them; fp32 or int8.

    image.onnx   pixel_values (batch, 3, S, S) fp32, normalised -> image_embeds (batch, E), of length 1
    text.onnx    input_ids (batch, tokens) int64                -> text_embeds (batch, E), of length 1

Both are made from our own towers, so blocks may differ in size. Texts may be cut after the longest of a batch: padding costs
time and changes nothing.

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
from torch import Tensor, nn
from torch.export import Dim

from tinyclip_workers.exporting.check import BATCH
from tinyclip_workers.exporting.samples import Samples
from tinyclip_workers.exporting.settings import read_settings, write_settings
from tinyclip_workers.model.folders import LoadedModel
from tinyclip_workers.model.preprocessing import normalize
from tinyclip_workers.model.towers import Clip
from tinyclip_workers.types import Matrix

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is imported; it would send usage data
try:
    import onnxruntime as ort
    import onnxscript  # noqa: F401 -- torch's exporter stands on it

    from tinyclip_workers.exporting.formats.onnx_int8 import quantise_convolutions, quantise_products, quantise_table
except ImportError as error:
    raise MissingExtra("export", "onnxruntime") from error

IMAGE, TEXT = "image.onnx", "text.onnx"
OPSET = 18
LARGEST_FILE = 1_900_000_000
"""A protobuf holds 2 GiB; the weights of a larger tower go into a file beside it."""


def export_onnx(loaded: LoadedModel, folder: Path, samples: Samples, int8: bool) -> int:
    """Write graphs, settings and tokenizer; returns how many pictures int8 was calibrated on.

    A ViT's matrix products, a text tower's and its table of tokens scale numbers as they come: nothing to calibrate. The
    convolutions of a ResNet have fixed scales, calibrated on pictures.
    """
    towers, size = own_towers(loaded), loaded.layout.image.image_size
    batch, tokens = Dim("batch"), Dim("tokens", max=loaded.layout.text.context_length)
    _write(_Image(towers), torch.zeros(2, 3, size, size), {0: batch}, ("pixel_values", "image_embeds"), folder / IMAGE)
    example_BL = loaded.tokenizer(["a", "b c"])[:, :5].contiguous()
    _write(_Text(towers), example_BL, {0: batch, 1: tokens}, ("input_ids", "text_embeds"), folder / TEXT)
    write_settings(loaded, folder)
    if not int8:
        return 0
    quantise_table(folder / TEXT)
    quantise_products(folder / TEXT)
    if loaded.layout.image.kind == "vit":
        quantise_products(folder / IMAGE)
        return 0
    quantise_convolutions(folder / IMAGE, loaded, samples.calibration)
    return len(samples.calibration)


class OnnxModel:
    """An exported folder in ONNX Runtime on this CPU."""

    def __init__(self, folder: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._image, self._text = (
            ort.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"]) for name in (IMAGE, TEXT)
        )
        self._settings = read_settings(folder)

    def images(self, pixels_BCSS: Tensor) -> Matrix:
        return self._images(normalize(pixels_BCSS, tuple(self._settings.mean), tuple(self._settings.std)))

    def photos(self, pictures: Sequence[Image.Image]) -> Matrix:
        return self._images(torch.stack([self._settings.transform(picture) for picture in pictures]))

    def texts(self, texts: Sequence[str]) -> Matrix:
        texts_BE: Matrix = self._text.run(None, {"input_ids": self.tokens(texts)})[0]
        return texts_BE

    def tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        return self._settings.tokens(list(texts))

    def _images(self, pixel_values_BCSS: Tensor) -> Matrix:
        batches = pixel_values_BCSS.split(BATCH)
        return np.concatenate([self._image.run(None, {"pixel_values": batch.numpy()})[0] for batch in batches])


class _Image(nn.Module):
    def __init__(self, towers: Clip) -> None:
        super().__init__()
        self.visual = towers.visual

    def forward(self, pixel_values: Tensor) -> Tensor:
        return F.normalize(self.visual(pixel_values), dim=-1)


class _Text(nn.Module):
    def __init__(self, towers: Clip) -> None:
        super().__init__()
        self.towers = towers

    def forward(self, input_ids: Tensor) -> Tensor:
        return F.normalize(self.towers.encode_tokens(input_ids), dim=-1)


def own_towers(loaded: LoadedModel) -> Clip:
    """The model in our own towers, which trace without a look at any value."""
    if isinstance(loaded.model, Clip):
        return loaded.model
    towers = Clip(loaded.layout)
    towers.load_state_dict(loaded.model.state_dict())
    return towers.eval()


def _write(module: nn.Module, example: Tensor, dynamic: dict[int, Any], names: tuple[str, str], path: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch's own use of itself
        program = torch.onnx.export(
            module.eval(), (example,), dynamo=True, input_names=[names[0]], output_names=[names[1]],
            dynamic_shapes=(dynamic,), opset_version=OPSET, verbose=False,
        )
    assert program is not None, "the dynamo exporter returns a program"
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # where in whose files it was traced
    size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    program.save(path, external_data=size > LARGEST_FILE)
