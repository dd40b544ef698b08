"""The published layout of reinforced data sets (DataCompDR, apple/ml-mobileclip), as files of a sample in a shard.

    KEY.syn.json   {"syn_text": [synthetic captions]}
    KEY.paug.json  {"param_aug": [views]}, or the list as a text; a view is [[top, left, height, width], operations], and
                   operations are [[number, magnitude], …] of torchvision's RandAugment, or null
    KEY.npz        image_emb (views, E), text_emb (captions and then synthetic captions, E)
    KEY.pth.gz     the same as tensors of bf16, gzipped

E is the sum of the teachers' embedding sizes: their embeddings, each of length 1, lie side by side. Files come from anybody: each
is read within limits of size, and nothing in it is executed.

K views, M texts.
"""

import io
import json
import math
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinyclip_workers.data.crops import Crop
from tinyclip_workers.data.operations import OPERATIONS, Operation
from tinyclip_workers.data.samples import MAX_TEXT_CHARACTERS, Sample, UnusableSample, small_file

SYNTHETIC, VIEWS, ARRAYS, TENSORS = "syn.json", "paug.json", "npz", "pth.gz"
"""Extensions of the files."""
MAX_EMBEDDING_BYTES = 64 << 20
"""Limit of the embeddings of a sample, unpacked; those of DataCompDR-12M have 200 kB."""
MAX_VIEWS, MAX_TEXTS = 1000, 1000


@dataclass(frozen=True)
class PublishedView:
    """A crop of the image as it is stored, and the operations after it."""

    crop: Crop
    operations: tuple[Operation, ...]


def synthetic_captions(sample: Sample) -> list[str]:
    """Return the synthetic captions of a sample, stripped; none if it has no such file. Raises any exception."""
    if SYNTHETIC not in sample and SYNTHETIC not in sample.get("__defects__", ()):
        return []
    texts = _document(sample, SYNTHETIC).get("syn_text")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or len(texts) > MAX_TEXTS:
        raise UnusableSample(f"syn_text in its {SYNTHETIC} is not a list of at most {MAX_TEXTS} texts")
    return [text[:MAX_TEXT_CHARACTERS].strip() for text in texts]


def published_views(sample: Sample) -> list[PublishedView]:
    """Return the views of a sample (K). Raises UnusableSample naming what is not supported, or any exception."""
    views = _document(sample, VIEWS).get("param_aug")
    views = json.loads(views) if isinstance(views, str) else views
    if not isinstance(views, list) or not 1 <= len(views) <= MAX_VIEWS:
        raise UnusableSample(f"param_aug in its {VIEWS} is not a list of 1 to {MAX_VIEWS} views")
    return [_view(view) for view in views]


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


def _document(sample: Sample, extension: str) -> dict[str, Any]:
    document = json.loads(small_file(sample, extension))
    if not isinstance(document, dict):
        raise UnusableSample(f"its {extension} is not an object")
    return document


def _view(view: Any) -> PublishedView:
    if not isinstance(view, list) or len(view) != 2 or not isinstance(view[0], list) or len(view[0]) != 4:
        raise UnusableSample("a view in param_aug is not a crop and operations; other transforms than these are not supported")
    top, left, height, width = (int(number) for number in view[0])
    return PublishedView(Crop(left, top, width, height), tuple(_operation(each) for each in view[1] or ()))


def _operation(operation: Any) -> Operation:
    number, magnitude = operation
    if not isinstance(number, int) or not 0 <= number < len(OPERATIONS):
        raise UnusableSample(f"operation {number!r} in param_aug is none of RandAugment's {len(OPERATIONS)}")
    if not math.isfinite(magnitude):
        raise UnusableSample(f"the magnitude of {OPERATIONS[number]} in param_aug is not a finite number")
    return number, float(magnitude)


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
