"""Weights in files: safetensors state dicts with open_clip's names, whole or compact.

A compact file is for small models that are kept in a repository: fp16 instead of fp32, and of the token embedding (most of a
small model) only the rows of tokens that its texts can contain. Loading restores a whole state dict.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from fsspec.implementations.local import LocalFileSystem
from safetensors import SafetensorError
from tinyclip.artifacts.store import ArtifactsStore
from torch import Tensor

from tinyclip_workers.runtime.filesystems import open_filesystem

EMBEDDING = "token_embedding.weight"
ROWS = "token_embedding.rows"
VALUES = "token_embedding.values"
_KEPT_IN_FLOAT = ("running_mean", "running_var")
"""Statistics of batch norm can exceed the range of fp16, and are few."""


class WeightsError(ValueError):
    """A weights file that cannot be used; the message names it."""


@dataclass(frozen=True)
class Header:
    """The header of a weights file."""

    shapes: dict[str, tuple[int, ...]]
    """Shapes of the state dict that loading returns: of a compact file, the embedding table with all its rows."""
    bytes: int
    """Size of the complete file."""
    metadata: dict[str, str]
    """Free text of the file's writer."""


def load_state_dict(uri: str) -> dict[str, Tensor]:
    """Load a state dict from a safetensors file at a path or fsspec URI to the CPU; a compact file becomes whole, in fp32.

    Raises FileNotFoundError, or WeightsError if the file is truncated or not safetensors.
    """
    fs, path = open_filesystem(uri)
    try:
        if isinstance(fs, LocalFileSystem):
            with fs.open(path, "rb"):  # FileNotFoundError rather than safetensors' own
                pass
            state = safetensors.torch.load_file(path)
        else:
            state = safetensors.torch.load(fs.cat_file(path))
    except SafetensorError as error:
        raise WeightsError(f"{uri} is not a whole safetensors file ({error}); copy or download it again") from error
    return _expand(state) if VALUES in state else state


def save_compact(store: ArtifactsStore, path: str, state: Mapping[str, Tensor], used_token_ids: Iterable[int]) -> None:
    """Write a state dict in fp16 with the embeddings of the used tokens only.

    The embedding of any other token becomes zero.
    Raises WeightsError for a value beyond fp16, ValueError for a token outside the table.
    """
    table_Vd = state[EMBEDDING]
    rows = torch.tensor(sorted(set(used_token_ids)), dtype=torch.int32)
    if not len(rows) or int(rows[0]) < 0 or int(rows[-1]) >= len(table_Vd):
        raise ValueError(f"token ids must be 0 to {len(table_Vd) - 1}, these are {rows[:1].tolist()} to {rows[-1:].tolist()}")
    tensors = {name: _half(name, tensor) for name, tensor in state.items() if name != EMBEDDING}
    tensors[ROWS] = rows
    tensors[VALUES] = _half(EMBEDDING, table_Vd[rows.long()])
    tensors["token_embedding.vocab_size"] = torch.tensor(len(table_Vd), dtype=torch.int32)
    store.write_bytes(path, safetensors.torch.save(tensors, {"format": "pt"}))


def read_header(uri: str) -> Header:
    """Read names and shapes from the first bytes of a file; of a compact one, the vocabulary size as well.

    Raises FileNotFoundError, or WeightsError if the file is not safetensors or incomplete.
    """
    fs, path = open_filesystem(uri)
    with fs.open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= 100_000_000:
            raise WeightsError(f"{uri} is not a safetensors file; convert it to safetensors")
        try:
            entries: dict[str, Any] = json.loads(file.read(length))
        except ValueError as error:
            raise WeightsError(f"{uri} is not a safetensors file ({error}); convert it to safetensors") from error
        metadata: dict[str, str] = entries.pop("__metadata__", None) or {}
        shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
        size = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        if fs.size(path) != size:
            raise WeightsError(f"{uri} has {fs.size(path)} bytes, it should have {size}; copy or download it again")
        if VALUES in shapes:
            file.seek(8 + length + entries["token_embedding.vocab_size"]["data_offsets"][0])
            vocab_size = struct.unpack("<i", file.read(4))[0]
            shapes[EMBEDDING] = (vocab_size, shapes.pop(VALUES)[1])
            del shapes[ROWS], shapes["token_embedding.vocab_size"]
    return Header(shapes, size, metadata)


def file_digest(uri: str) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    fs, path = open_filesystem(uri)
    with fs.open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _half(name: str, tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if not tensor.is_floating_point() or tensor.dim() == 0 or name.endswith(_KEPT_IN_FLOAT):
        return tensor
    half = tensor.half()
    if not torch.isfinite(half).all():
        raise WeightsError(f"{name} has values up to {float(tensor.abs().max()):g}, beyond fp16; save it uncompressed")
    return half


def _expand(state: dict[str, Tensor]) -> dict[str, Tensor]:
    rows, values = state.pop(ROWS).long(), state.pop(VALUES).float()
    table_Vd = torch.zeros(int(state.pop("token_embedding.vocab_size")), values.shape[1])
    table_Vd[rows] = values
    whole = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    return {**whole, EMBEDDING: table_Vd}
