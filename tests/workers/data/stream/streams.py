"""Streams of shapes for tests, and what their batches hold. The tokens of a text are its letters."""

import itertools

import torch
from tinyclip.schemas.spec import DataSpec
from tinyclip_workers.data.index.dataset_index import index_shards
from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.data.stream.loader import BatchLoader
from tinyclip_workers.data.stream.pairs import PairStream
from torch import Tensor

END = "~"
"""The largest of the letters, as CLIP's end-of-text is of its tokens."""


def letters(text: str) -> Tensor:
    return torch.tensor([ord(c) for c in f"{text + END:<24}"[:24]])


def texts(batch: Batch) -> list[str]:
    return ["".join(chr(c) for c in row).strip().removesuffix(END) for row in batch.tokens_BT.tolist()]


def stream(shards: str, **options: object) -> PairStream:
    train = {"shards": shards, "caption_key": "json.captions", **options.pop("train", {})}  # type: ignore[dict-item]
    defaults = {"batch_size": 8, "image_size": 32, "tokenize": letters, "seed": 3}
    spec = DataSpec.model_validate({"train": train})
    return PairStream(spec, index_shards(spec.train), **{**defaults, **options})  # type: ignore[arg-type]


def take(source: PairStream, count: int, processes: int = 0) -> list[Batch]:
    return list(itertools.islice(BatchLoader(source, processes), count))


def equal(one: Batch, other: Batch) -> bool:
    return torch.equal(one.images_BCHW, other.images_BCHW) and texts(one) == texts(other)
