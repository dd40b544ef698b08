"""The costs of a layout that need no measurement: parameters, multiply-accumulates, and bytes of its weights file.

A weights file is safetensors: 8 bytes, a header in JSON that is padded to a multiple of 8, and the tensors.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from tinyclip.schemas.layouts import Layout

from tinyclip_workers.model.files.weights import EMBEDDING, ROWS, SCALES, VALUES, VOCAB_SIZE
from tinyclip_workers.model.summary import meta_model, summarize

COMPACT_METADATA = {"format": "pt"}
_BYTES = {"I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I8": 1}
_TYPES = ("I64", "F32", "I32", "BF16", "F16", "I8")
"""In the order of a file: those with larger values first."""
_KEPT_IN_FLOAT = ("running_mean", "running_var")
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
"""Type and shape by name."""


@dataclass(frozen=True)
class Sizes:
    """The size of a model."""

    params: int
    """Of both towers, embeddings included."""
    macs: int
    """Of an image and a text of full context length."""
    bytes: dict[str, int]
    """Of the weights file, embeddings included: `fp32` as a version has it; `bf16` in two bytes a value, as a compact copy with
    all tokens; `int8` the same with the token embedding in int8."""


def sizes_of(layout: Layout) -> Sizes:
    """Return the size of a layout's model, exactly."""
    summary = summarize(layout)
    # Of the parameters, the scale and the bias of the loss are of no tower.
    files = {"fp32": _version_file(layout), "bf16": _compact_file(layout), "int8": _quantized_file(layout)}
    return Sizes(
        params=summary.image_params + summary.text_params,
        macs=summary.macs,
        bytes={name: file_bytes(tensors, {} if name == "fp32" else COMPACT_METADATA) for name, tensors in files.items()},
    )


def file_bytes(tensors: Tensors, metadata: Mapping[str, str]) -> int:
    """Return the size of a safetensors file of these tensors."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, (dtype, shape) in sorted(tensors.items(), key=lambda item: (_TYPES.index(item[1][0]), item[0])):
        end = position + math.prod(shape) * _BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    length = len(json.dumps(header, separators=(",", ":")))
    return 8 + -(-length // 8) * 8 + position


def _version_file(layout: Layout) -> Tensors:
    state = meta_model(layout).state_dict()
    return {name: ("F32" if tensor.is_floating_point() else "I64", tuple(tensor.shape)) for name, tensor in state.items()}


def _compact_file(layout: Layout) -> Tensors:
    """Return the tensors that `weights.save_compact` writes of all tokens."""
    tensors = {name: (_half(name, dtype, shape), shape) for name, (dtype, shape) in _version_file(layout).items()}
    _, (vocabulary, width) = tensors.pop(EMBEDDING)
    return {**tensors, VALUES: ("F16", (vocabulary, width)), ROWS: ("I32", (vocabulary,)), VOCAB_SIZE: ("I32", ())}


def _quantized_file(layout: Layout) -> Tensors:
    tensors = _compact_file(layout)
    _, (vocabulary, width) = tensors[VALUES]
    return {**tensors, VALUES: ("I8", (vocabulary, width)), SCALES: ("F32", (vocabulary,))}


def _half(name: str, dtype: str, shape: tuple[int, ...]) -> str:
    """Return the type of a tensor in a compact file: scalars and statistics of batch norm stay in fp32."""
    return "F16" if dtype == "F32" and shape and not name.endswith(_KEPT_IN_FLOAT) else dtype
