"""The OpenVINO engine: image and text towers converted to OpenVINO IR, the image tower optionally quantised to int8.

A converted tower includes the normalisation of colours and of embeddings: pixels or tokens in, unit vectors out. Both are built
from our own towers, which load any student's weights and whose blocks may differ in size.

OpenVINO and NNCF are an extra: importing this module raises MissingExtra if OpenVINO is not installed.

Shapes: B batch, S image size, C channels, L tokens of the longest text, E embedding size.
"""

import contextlib
import functools
import io
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from tinyclip.errors import MissingExtra
from torch import Tensor, nn
from torch.export import Dim

from tinyclip_workers.engines.protocol import EngineReport
from tinyclip_workers.model.files.folders import LoadedModel, towers_to_trace
from tinyclip_workers.model.preprocessing import normalize
from tinyclip_workers.model.tokenizers import unknown_counter
from tinyclip_workers.model.towers import RESNET_STEM, Model, encode_tokens, longest_text, trims_padding
from tinyclip_workers.types import Matrix, Pixels

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # looks like not installed: OpenVINO and NNCF would send usage data
try:
    import openvino as ov
except ImportError as error:
    raise MissingExtra("openvino", "OpenVINO") from error

IrModel = Any
"""`openvino.Model`."""


class OpenVinoEngine:
    """Two compiled towers on a CPU, images in fp32, bf16 or int8, texts in fp32; torch's weights are not kept."""

    def __init__(
        self, loaded: LoadedModel, image: Path, text: Path, report: EngineReport, *, threads: int, bf16: bool = False
    ) -> None:
        """`image` and `text`: `.xml` files written by `save_model`."""
        self.name, self.report = report.engine, report
        self.embed_dim, self.image_size = loaded.layout.embed_dim, loaded.layout.image_size
        self.embedding_sizes = loaded.embedding_sizes
        self.logit_scale = float(loaded.model.logit_scale.detach().exp())
        self.unknown_tokens = unknown_counter(loaded.tokenizer)
        self._tokenize, self._trims = loaded.tokenizer, trims_padding(loaded.model)
        self._image = CompiledTower(image, threads=threads, bf16=bf16)
        self._text = CompiledTower(text, threads=threads)

    def encode_image(self, images_BSSC: Pixels) -> Matrix:
        return self._image(images_BSSC)

    def encode_text(self, texts: Sequence[str]) -> Matrix:
        tokens_BT = self._tokenize(list(texts))
        return self._text((tokens_BT[:, : longest_text(tokens_BT)] if self._trims else tokens_BT).numpy())


def convert_image_tower(loaded: LoadedModel) -> IrModel:
    """Convert the image tower: uint8 images (B, S, S, C) to normalised fp32 embeddings (B, E), for any B."""
    size = loaded.layout.image_size
    example_BSSC = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    module = _ImageTower(towers_to_trace(loaded), loaded.image_mean, loaded.image_std)
    model = _convert(module, example_BSSC, {0: Dim.AUTO}, "pictures")
    model.reshape({"pictures": [-1, size, size, 3]})
    return model


def convert_text_tower(loaded: LoadedModel, towers: Model | None = None) -> IrModel:
    """Convert the text tower: int64 tokens (B, L) to normalised fp32 embeddings (B, E), for any B and any L up to the context.

    `towers`: in place of the model's own, such as with another type of the token embedding. Padding costs time and has no
    effect: cut the tokens after the longest text of the batch (`towers.longest_text`), unless the model reads them
    (`towers.trims_padding`), which then has the whole context.
    """
    example_BL, lengths = loaded.tokenizer(["a", "b c"]), {0: Dim.AUTO}
    if trims_padding(loaded.model):
        example_BL, lengths = example_BL[:, :5].contiguous(), {0: Dim.AUTO, 1: Dim.AUTO}
    return _convert(_TextTower(towers or towers_to_trace(loaded)), example_BL, lengths, "tokens")


def quantize_image_tower(model: IrModel, images_BSSC: Pixels, *, transformer: bool) -> IrModel:
    """Return the image tower in int8 (weights and activations), calibrated by NNCF on real images; `model` is not modified.

    `transformer`: True for a ViT, False for a ResNet. Patch embedding or stem, and the last product, stay in fp32: in int8 they
    save little and cost most of the accuracy (docs/decisions/0025-int8.md).
    Raises ValueError without images, MissingExtra without NNCF.
    """
    try:
        import nncf  # seconds to import, and only the first start of a version quantises
    except ImportError as error:
        raise MissingExtra("openvino", "NNCF") from error
    if not len(images_BSSC):
        raise ValueError("int8 is calibrated on images, and there are none")
    nncf.set_log_level(logging.ERROR)
    ends = _operations(model, "Convolution")[:RESNET_STEM] + _operations(model, "MatMul")[-1:]  # a ViT has only one convolution
    with contextlib.redirect_stdout(io.StringIO()):  # NNCF prints progress bars
        return nncf.quantize(
            model,
            nncf.Dataset([image[None] for image in images_BSSC]),
            preset=nncf.QuantizationPreset.PERFORMANCE,  # symmetric: nearer to fp32 than MIXED, and no slower
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            ignored_scope=nncf.IgnoredScope(
                names=_normalisation(model) + ends,
                types=[] if transformer else ["Add"],  # sums in int8 save nothing; for a transformer NNCF leaves them out
                validate=False,
            ),
            subset_size=len(images_BSSC),
            advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),  # no measurable difference
        )


def save_model(model: IrModel, path: Path) -> None:
    """Write `path` (`.xml`) and the weights beside it (`.bin`), in full precision. Not atomic: write to a temporary folder."""
    ov.save_model(model, path, compress_to_fp16=False)


def read_model(path: Path) -> IrModel:
    """Read a model written by `save_model`. Raises RuntimeError if it cannot be read."""
    return openvino_core().read_model(path)


@functools.cache
def openvino_core() -> Any:
    """Return the only `Core` of this process; it is never destroyed.

    OpenVINO's CPU plugin replaces the alternate signal stack of the thread that loads it. When two plugins are destroyed in
    the order in which they were loaded, or one in another thread, a thread keeps a signal stack in unmapped memory, and its
    next signal ends the process (decision 0026). The plugin is therefore loaded once, in a thread that ends at once.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_load_cpu_plugin).result()


def _load_cpu_plugin() -> Any:
    core = ov.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")
    return core


class CompiledTower:
    """A tower compiled for this machine's CPU. One thread may call it at a time."""

    def __init__(self, model: IrModel | Path, *, threads: int, bf16: bool = False) -> None:
        """`model`: the model or its `.xml` file. It computes in fp32, or with `bf16` in bf16 if the CPU supports it."""
        config = {
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # replicas share the cores, and all would be pinned to the first ones
        }
        self._request = openvino_core().compile_model(model, "CPU", config).create_infer_request()

    def __call__(self, inputs: npt.NDArray[Any]) -> Matrix:
        """Return the embeddings (B, E)."""
        embeddings_BE: Matrix = self._request.infer([np.ascontiguousarray(inputs)])[0]
        return embeddings_BE.copy()  # the next call overwrites the request's own memory


class _ImageTower(nn.Module):
    def __init__(self, towers: Model, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.towers, self._mean, self._std = towers, mean, std

    def forward(self, images_BSSC: Tensor) -> Tensor:
        pixels_BCSS = normalize(images_BSSC.permute(0, 3, 1, 2), self._mean, self._std)
        return F.normalize(self.towers.encode_image(pixels_BCSS), dim=-1)


class _TextTower(nn.Module):
    def __init__(self, towers: Model) -> None:
        super().__init__()
        self.towers = towers

    def forward(self, tokens_BL: Tensor) -> Tensor:
        return F.normalize(encode_tokens(self.towers, tokens_BL), dim=-1)


def _convert(module: nn.Module, example: Tensor, dynamic: dict[int, Any], name: str) -> IrModel:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", FutureWarning)  # OpenVINO calls a deprecated function of torch
        program = torch.export.export(module.eval(), (example,), dynamic_shapes=(dynamic,))
        model = ov.convert_model(program)
    model.inputs[0].get_tensor().set_names({name})
    model.outputs[0].get_tensor().set_names({"embeddings"})
    return model


def _normalisation(model: IrModel) -> list[str]:
    """Return the names of the operations that normalise colours and embeddings: cheap, and inexact in int8."""
    ops = model.get_ordered_ops()
    first = next(op for op in ops if op.get_type_name() == "Convolution")
    length = next(op for op in ops if op.get_type_name() == "ReduceL2")
    before = _reachable([first.input_value(0).get_node()], lambda op: [value.get_node() for value in op.input_values()])
    projected = length.input_value(0)
    after = _reachable(_readers(projected), lambda op: [reader for output in op.outputs() for reader in _readers(output)])
    return [op.get_friendly_name() for op in (before | after).values()]


def _operations(model: IrModel, type_name: str) -> list[str]:
    """Return the names of the operations of a type, in the order in which they are computed."""
    return [op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() == type_name]


def _readers(output: Any) -> list[Any]:
    return [target.get_node() for target in output.get_target_inputs()]


def _reachable(start: list[Any], following: Callable[[Any], list[Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while start:
        op = start.pop()
        if op.get_friendly_name() not in found:
            found[op.get_friendly_name()] = op
            start += following(op)
    return found
