"""Weights in files: safetensors state dicts with open_clip's names, whole or compact.

A compact file is for small models that are kept in a repository: fp16 instead of fp32, and of the token embedding (most of a
small model) only the rows of tokens that its texts can contain. Loading restores a whole state dict.
"""

import hashlib
import io
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO

import safetensors.torch
import torch
from safetensors import SafetensorError
from tinyclip.artifacts.store import ArtifactsStore
from torch import Tensor

from tinyclip_workers.model.headers import TensorEntry, WeightsError, read_entries
from tinyclip_workers.runtime.user_files import open_file, opened_path

EMBEDDING = "token_embedding.weight"
ROWS = "token_embedding.rows"
VALUES = "token_embedding.values"
VOCAB_SIZE = "token_embedding.vocab_size"
MAX_EMBEDDING_VALUES = 1 << 28
"""Limit of the table that a compact file becomes: 1 GiB. The largest published one has 63 million values."""
HEADER_BLOCK_BYTES, PIECE = 1 << 20, 1 << 20
_KEPT_IN_FLOAT = ("running_mean", "running_var")
"""Statistics of batch norm can exceed the range of fp16, and are few."""


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
    with open_file(uri) as file:
        return read_state_dict(file, uri)


def read_state_dict(file: IO[bytes], uri: str) -> dict[str, Tensor]:
    """Load a state dict as `load_state_dict` from an open file; `uri` is its address, for errors."""
    file.seek(0)
    _read_header(file, uri)  # its messages are better than those of safetensors, which repeat content of the file
    path = opened_path(file)
    try:
        state = safetensors.torch.load(_read_whole(file)) if path is None else safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{uri} is not a whole safetensors file; copy or download it again") from error
    return _expand(state, uri) if VALUES in state else state


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
    tensors[VOCAB_SIZE] = torch.tensor(len(table_Vd), dtype=torch.int32)
    store.write_bytes(path, safetensors.torch.save(tensors, {"format": "pt"}))


def read_header(uri: str) -> Header:
    """Read names and shapes from the first bytes of a file; of a compact one, the vocabulary size as well.

    Raises FileNotFoundError, or WeightsError if the file is not safetensors or incomplete.
    """
    with open_file(uri, block_bytes=HEADER_BLOCK_BYTES) as file:
        return _read_header(file, uri)


def _read_header(file: IO[bytes], uri: str) -> Header:
    entries, metadata, start = read_entries(file, uri)
    size = start + max((entry.data_offsets[1] for entry in entries.values()), default=0)
    found = file.seek(0, io.SEEK_END)
    if found != size:
        raise WeightsError(f"{uri} has {found} bytes, it should have {size}; copy or download it again")
    shapes = {name: tuple(entry.shape) for name, entry in entries.items()}
    if VALUES in shapes:
        shapes[EMBEDDING] = (_vocab_size(file, entries, start, uri), entries[VALUES].shape[1])
        for name in (VALUES, ROWS, VOCAB_SIZE):
            del shapes[name]
    return Header(shapes, size, metadata)


def _vocab_size(file: IO[bytes], entries: Mapping[str, TensorEntry], start: int, uri: str) -> int:
    """Return the rows of the embedding table that a compact file stands for. Raises WeightsError."""
    expected = {VOCAB_SIZE: ("I32", 0), ROWS: ("I32", 1), VALUES: ("F16", 2)}
    for name, (dtype, axes) in expected.items():
        if name not in entries or entries[name].dtype != dtype or len(entries[name].shape) != axes:
            raise WeightsError(f"{uri} is not a whole compact file: {name} must be {dtype} with {axes} axes; save it again")
    file.seek(start + entries[VOCAB_SIZE].data_offsets[0])
    size: int = struct.unpack("<i", file.read(4))[0]
    rows, width = entries[VALUES].shape
    if entries[ROWS].shape != [rows] or not rows <= size <= MAX_EMBEDDING_VALUES // max(1, width):
        raise WeightsError(f"{uri} is not a whole compact file: {rows} rows do not fit a vocabulary of {size}; save it again")
    return size


def file_digest(uri: str) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open_file(uri) as file:
        return read_digest(file)


def read_digest(file: IO[bytes]) -> str:
    """Return the SHA-256 of an open file, in hexadecimal."""
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(PIECE):
        digest.update(chunk)
    return digest.hexdigest()


def _read_whole(file: IO[bytes]) -> bytes:
    """Return the bytes of a remote file, in pieces: a response of a whole file exceeds the limit of responses."""
    buffer = io.BytesIO()
    file.seek(0)
    while chunk := file.read(PIECE):
        buffer.write(chunk)
    return buffer.getvalue()


def _half(name: str, tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if not tensor.is_floating_point() or tensor.dim() == 0 or name.endswith(_KEPT_IN_FLOAT):
        return tensor
    half = tensor.half()
    if not torch.isfinite(half).all():
        raise WeightsError(f"{name} has values up to {float(tensor.abs().max()):g}, beyond fp16; save it uncompressed")
    return half


def _expand(state: dict[str, Tensor], uri: str) -> dict[str, Tensor]:
    rows, values = state.pop(ROWS).long(), state.pop(VALUES).float()
    table_Vd = torch.zeros(int(state.pop(VOCAB_SIZE)), values.shape[1])
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(table_Vd):
        raise WeightsError(f"{uri} is not a whole compact file: a row is beyond its {len(table_Vd)} tokens; save it again")
    table_Vd[rows] = values
    whole = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    return {**whole, EMBEDDING: table_Vd}
