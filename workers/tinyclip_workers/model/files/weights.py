"""Weights in files: safetensors state dicts with open_clip's names, whole or compact.

A compact file has the token embedding, most of a small model, in another form: only the rows of tokens that its texts can
contain, and in fewer bits. Loading restores a whole state dict. Its tensors in place of `token_embedding.weight` (V, d):

    token_embedding.values      (R, d) F16, or I8 with
    token_embedding.scales      (R)    F32: a row is its values times its scale
    token_embedding.rows        (R)    I32: the tokens of these rows; those of all others are zero
    token_embedding.vocab_size  ()     I32: V

All other tensors are in fp32, or, of models that are kept in a repository, in fp16.
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

from tinyclip_workers.model.files.headers import TensorEntry, WeightsError, read_entries
from tinyclip_workers.runtime.user_files import open_file, opened_path

EMBEDDING = "token_embedding.weight"
ROWS = "token_embedding.rows"
VALUES = "token_embedding.values"
SCALES = "token_embedding.scales"
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


def quantized_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict as a compact file with the token embedding in int8, and all else as it is."""
    values_Vd, scales_V = quantize_rows(state[EMBEDDING])
    rows_V = torch.arange(len(values_Vd), dtype=torch.int32)
    table = {VALUES: values_Vd, SCALES: scales_V, ROWS: rows_V, VOCAB_SIZE: torch.tensor(len(rows_V), dtype=torch.int32)}
    return {**{name: tensor for name, tensor in state.items() if name != EMBEDDING}, **table}


def quantize_rows(table_Vd: Tensor) -> tuple[Tensor, Tensor]:
    """Round a table to int8 with a scale for each row (V), with which the largest number of a row is 127 or -127."""
    table_Vd = table_Vd.detach().cpu().float()
    scales_V = table_Vd.abs().amax(dim=1) / 127
    values_Vd = (table_Vd / scales_V.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round()
    return values_Vd.to(torch.int8), scales_V


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
        for name in (VALUES, ROWS, VOCAB_SIZE, SCALES):
            shapes.pop(name, None)
    return Header(shapes, size, metadata)


def _vocab_size(file: IO[bytes], entries: Mapping[str, TensorEntry], start: int, uri: str) -> int:
    """Return the rows of the embedding table that a compact file stands for. Raises WeightsError."""
    expected = {VOCAB_SIZE: ("I32", 0), ROWS: ("I32", 1), VALUES: ("F16", 2)}
    if SCALES in entries:
        expected |= {SCALES: ("F32", 1), VALUES: ("I8", 2)}
    for name, (dtype, axes) in expected.items():
        if name not in entries or entries[name].dtype != dtype or len(entries[name].shape) != axes:
            raise WeightsError(f"{uri} is not a whole compact file: {name} must be {dtype} with {axes} axes; save it again")
    file.seek(start + entries[VOCAB_SIZE].data_offsets[0])
    size: int = struct.unpack("<i", file.read(4))[0]
    rows, width = entries[VALUES].shape
    lengths = [entries[name].shape for name in (ROWS, SCALES) if name in entries]
    if any(length != [rows] for length in lengths) or not rows <= size <= MAX_EMBEDDING_VALUES // max(1, width):
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
    rows, values, scales = state.pop(ROWS).long(), state.pop(VALUES).float(), state.pop(SCALES, None)
    if scales is not None:
        values *= scales[:, None]
    table_Vd = torch.zeros(int(state.pop(VOCAB_SIZE)), values.shape[1])
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(table_Vd):
        raise WeightsError(f"{uri} is not a whole compact file: a row is beyond its {len(table_Vd)} tokens; save it again")
    table_Vd[rows] = values
    whole = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    return {**whole, EMBEDDING: table_Vd}
