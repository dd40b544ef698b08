"""The embeddings in the published layout of reinforced data sets (see `datacompdr`), which are read within limits of size.

K views, M texts.
"""

import io
import math
import zipfile
import zlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinyclip_workers.data.datacompdr import ARRAYS, TENSORS
from tinyclip_workers.data.samples import Sample, UnusableSample

MAX_EMBEDDING_BYTES = 64 << 20
"""Limit of the embeddings of a sample, unpacked; those of DataCompDR-12M have 200 kB."""


def published_embeddings(sample: Sample) -> tuple[Tensor, Tensor]:
    """Return the embeddings of views (K, E) and of texts (M, E), in fp32. Raises any exception."""
    arrays = _read_npz(_file(sample, ARRAYS)) if ARRAYS in sample else _read_tensors(_file(sample, TENSORS))
    found = []
    for name in ("image_emb", "text_emb"):
        x = arrays.get(name)
        if x is None or x.ndim != 2 or not x.is_floating_point() or not bool(torch.isfinite(x).all()):
            raise UnusableSample(f"its embeddings have no table of finite numbers {name}")
        found.append(x.float())
    if found[0].shape[1] != found[1].shape[1]:
        raise UnusableSample(f"its embeddings of images have {found[0].shape[1]} numbers, those of texts {found[1].shape[1]}")
    return found[0], found[1]


def _file(sample: Sample, extension: str) -> bytes:
    if extension not in sample:
        raise UnusableSample(f"it has neither {ARRAYS} nor {TENSORS}")
    data: bytes = sample[extension]
    return data


def _read_npz(data: bytes) -> dict[str, Tensor]:
    """Read the arrays of an npz file. The sizes in headers are compared with what is there before memory is allocated."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            if entry.filename not in ("image_emb.npy", "text_emb.npy"):
                continue
            if entry.file_size > MAX_EMBEDDING_BYTES:
                raise UnusableSample(f"its {entry.filename} has more than {MAX_EMBEDDING_BYTES:,} bytes")
            with archive.open(entry) as file:
                array = _read_npy(file.read(MAX_EMBEDDING_BYTES + 1))
            found[entry.filename.removesuffix(".npy")] = torch.from_numpy(array.copy())
    return found


def _read_npy(data: bytes) -> NDArray[Any]:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.kind != "f" or fortran or dtype.itemsize * math.prod(shape) != len(data) - file.tell():
        raise UnusableSample("its embeddings are not a whole array of floating-point numbers in rows")
    return np.frombuffer(data, dtype.newbyteorder("="), offset=file.tell()).reshape(shape)


def _read_tensors(data: bytes) -> dict[str, Tensor]:
    """Read the tensors of a gzipped file of torch: only tensors are made of it, and no larger ones than their numbers."""
    unpacker = zlib.decompressobj(wbits=31)
    unpacked = unpacker.decompress(data, MAX_EMBEDDING_BYTES)
    if not unpacker.eof:
        raise UnusableSample(f"its {TENSORS} is truncated, or has more than {MAX_EMBEDDING_BYTES:,} bytes unpacked")
    document = torch.load(io.BytesIO(unpacked), map_location="cpu", weights_only=True)
    if not isinstance(document, dict):
        raise UnusableSample(f"its {TENSORS} is not a mapping of tensors")
    found = {name: x for name, x in document.items() if isinstance(x, Tensor)}
    if any(x.layout != torch.strided or x.numel() * x.element_size() > x.untyped_storage().nbytes() for x in found.values()):
        raise UnusableSample(f"its {TENSORS} has a tensor that is larger than its numbers")
    return found
