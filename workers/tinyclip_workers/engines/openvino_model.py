"""A model as OpenVINO IR: its image and text tower converted, the image tower quantised to int8, kept as files.

Either tower holds the whole way from what comes in to what is compared: colours are normalised and embeddings brought to length 1
inside. Both are made from our own towers, which load any student's weights and whose blocks may differ in size.

OpenVINO and NNCF are an extra: importing this module raises MissingExtra where OpenVINO is not installed.

Shapes: B batch, S image size, C channels, L tokens of the longest text, E embedding size.
"""

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from tinyclip.errors import MissingExtra
from torch import Tensor, nn
from torch.export import Dim

from tinyclip_workers.model.folders import LoadedModel
from tinyclip_workers.model.preprocessing import normalize
from tinyclip_workers.model.towers import RESNET_STEM, Clip
from tinyclip_workers.types import Matrix, Pixels

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # not installed, as they see it: both would call home
try:
    import openvino as ov
except ImportError as error:
    raise MissingExtra("openvino", "OpenVINO") from error

IrModel = Any
"""`openvino.Model`."""


def convert_image_tower(loaded: LoadedModel) -> IrModel:
    """uint8 pictures (B, S, S, C) to fp32 embeddings (B, E) of length 1, as what was loaded computes them; any B."""
    size = loaded.layout.image.image_size
    example_BSSC = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    module = _ImageTower(_own_towers(loaded), loaded.image_mean, loaded.image_std)
    model = _converted(module, example_BSSC, {0: Dim.AUTO}, "pictures")
    model.reshape({"pictures": [-1, size, size, 3]})
    return model


def convert_text_tower(loaded: LoadedModel) -> IrModel:
    """int64 tokens (B, L) to fp32 embeddings (B, E) of length 1; any B, and any L up to the context.

    Padding costs time and changes nothing: cut the tokens after the longest text of the batch (`towers.longest_text`).
    """
    example_BL = loaded.tokenizer(["a", "b c"])[:, :5].contiguous()
    return _converted(_TextTower(_own_towers(loaded)), example_BL, {0: Dim.AUTO, 1: Dim.AUTO}, "tokens")


def quantize_image_tower(model: IrModel, pictures_BSSC: Pixels, *, transformer: bool) -> IrModel:
    """The image tower in int8 (weights and activations), calibrated by NNCF on real pictures; `model` itself stays as it is.

    `transformer`: a ViT, or not (a ResNet). Patch embedding or stem, and the last product, stay in fp32: a small part of the work
    that costs most of the accuracy (docs/decisions/0025-int8.md). Raises ValueError without pictures, MissingExtra without NNCF.
    """
    try:
        import nncf  # seconds to import, and only the first start of a version quantises
    except ImportError as error:
        raise MissingExtra("openvino", "NNCF") from error
    if not len(pictures_BSSC):
        raise ValueError("int8 is calibrated on pictures, and there are none")
    nncf.set_log_level(logging.ERROR)
    ends = _names(model, "Convolution")[:RESNET_STEM] + _names(model, "MatMul")[-1:]  # a ViT has but one convolution
    with contextlib.redirect_stdout(io.StringIO()):  # it draws progress bars
        return nncf.quantize(
            model,
            nncf.Dataset([picture[None] for picture in pictures_BSSC]),
            preset=nncf.QuantizationPreset.PERFORMANCE,  # symmetric: nearer to fp32 than MIXED, and no slower
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            ignored_scope=nncf.IgnoredScope(
                names=_around_the_tower(model) + ends,
                types=[] if transformer else ["Add"],  # sums in int8 save nothing; of a transformer NNCF knows that
                validate=False,
            ),
            subset_size=len(pictures_BSSC),
            advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),  # made no difference
        )


def save_model(model: IrModel, path: Path) -> None:
    """Write `path` (`.xml`) and the weights beside it (`.bin`), in full precision. Not atomic: write into a folder aside."""
    ov.save_model(model, path, compress_to_fp16=False)


def read_model(path: Path) -> IrModel:
    """What `save_model` wrote at `path`. Raises RuntimeError where it cannot be read."""
    return ov.Core().read_model(path)


class CompiledTower:
    """A tower compiled for this machine's CPU. One thread may call it at a time."""

    def __init__(self, model: IrModel | Path, *, threads: int, bf16: bool = False) -> None:
        """`model` or the `.xml` file of one. Sums are in fp32, or in bf16 where the CPU has it and `bf16` asks for it."""
        core = ov.Core()
        config = {
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # replicas share the cores, and all would be pinned to the first
        }
        self._request = core.compile_model(model, "CPU", config).create_infer_request()

    def __call__(self, inputs: npt.NDArray[Any]) -> Matrix:
        """Embeddings (B, E)."""
        embeddings_BE: Matrix = self._request.infer([np.ascontiguousarray(inputs)])[0]
        return embeddings_BE.copy()  # the request's own memory is written again by its next call


class _ImageTower(nn.Module):
    def __init__(self, towers: Clip, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.visual, self._mean, self._std = towers.visual, mean, std

    def forward(self, pictures_BSSC: Tensor) -> Tensor:
        pixels_BCSS = normalize(pictures_BSSC.permute(0, 3, 1, 2), self._mean, self._std)
        return F.normalize(self.visual(pixels_BCSS), dim=-1)


class _TextTower(nn.Module):
    def __init__(self, towers: Clip) -> None:
        super().__init__()
        self.towers = towers

    def forward(self, tokens_BL: Tensor) -> Tensor:
        return F.normalize(self.towers.encode_tokens(tokens_BL), dim=-1)


def _own_towers(loaded: LoadedModel) -> Clip:
    if isinstance(loaded.model, Clip):
        return loaded.model
    towers = Clip(loaded.layout)
    towers.load_state_dict(loaded.model.state_dict())
    return towers.eval()


def _converted(module: nn.Module, example: Tensor, dynamic: dict[int, Any], name: str) -> IrModel:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", FutureWarning)  # OpenVINO asks torch in a way that torch will drop
        program = torch.export.export(module.eval(), (example,), dynamic_shapes=(dynamic,))
        model = ov.convert_model(program)
    model.inputs[0].get_tensor().set_names({name})
    model.outputs[0].get_tensor().set_names({"embeddings"})
    return model


def _around_the_tower(model: IrModel) -> list[str]:
    """Names of what normalises colours and lengths: it costs nothing, and a length in int8 is not 1."""
    ops = model.get_ordered_ops()
    first = next(op for op in ops if op.get_type_name() == "Convolution")
    length = next(op for op in ops if op.get_type_name() == "ReduceL2")
    before = _closure([first.input_value(0).get_node()], lambda op: [value.get_node() for value in op.input_values()])
    projected = length.input_value(0)
    after = _closure(_readers(projected), lambda op: [reader for output in op.outputs() for reader in _readers(output)])
    return [op.get_friendly_name() for op in (before | after).values()]


def _names(model: IrModel, kind: str) -> list[str]:
    """Of the operations of a kind, in the order in which they are computed."""
    return [op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() == kind]


def _readers(output: Any) -> list[Any]:
    return [target.get_node() for target in output.get_target_inputs()]


def _closure(start: list[Any], following: Callable[[Any], list[Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while start:
        op = start.pop()
        if op.get_friendly_name() not in found:
            found[op.get_friendly_name()] = op
            start += following(op)
    return found
