"""The training input: an endless, repeatable stream of batches, split over ranks and loader processes.

A *share* is what one loader process of one rank reads; there are world size x loader processes of them. Batch number b of
epoch e of a share depends on (seed, e, share, b) alone, so a position is two numbers, and a resumed run gets the same batches
as an uninterrupted one. A position of another number of loader processes becomes the start of the next
epoch. Batches do not cross epochs: the samples at the end of an epoch that do not fill a batch are dropped.
"""

import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from tinyclip.schemas.spec import DataSpec
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.images import decode_image, random_resized_crop
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.samples import Sample, UnusableSample, captions_of, image_bytes, is_held_out, sample_errors, text_field
from tinyclip_workers.data.shards import read_shards
from tinyclip_workers.model.towers import longest_text

log = logging.getLogger(__name__)

COUNT_LOG_SECONDS = 60.0
"""Time between the log lines of a count: an attempt that writes nothing for long counts as stalled."""
Tokenize = Callable[[str], Tensor]
TOKEN_CACHE_SIZE = 100_000
"""Texts whose tokens each process caches."""

PREFETCH_BYTES, MAX_PREFETCH = 1 << 30, 4
"""Images that the loader processes of a worker hold ready in shared memory, and batches that each one does; at least one."""

SHARDS_PER_SHARE = 4
"""With fewer shards for each share, shares split samples instead of shards: whole shards would be too uneven."""


@dataclass
class Batch:
    """Pairs and their position in the data."""

    images_BCHW: Tensor
    """uint8, cropped, not yet augmented or normalised."""
    tokens_BT: Tensor
    """Up to the end of the longest text."""
    share: int
    """Number of the loader process within its rank."""
    position: tuple[int, int]
    """(epoch, batches of it that this share has yielded, including this one)."""
    skipped: Skipped
    processes: int = 1
    """Loader processes of its rank."""

    def pin_memory(self) -> "Batch":
        """Copy the tensors to memory from which CUDA copies without keeping the CPU waiting; the loader calls this."""
        return replace(self, images_BCHW=self.images_BCHW.pin_memory(), tokens_BT=self.tokens_BT.pin_memory())


@dataclass
class DataPosition:
    """The position of each loader process of this rank; the part of a checkpoint that concerns the data."""

    batches: int = 0
    shares: dict[int, tuple[int, int]] = field(default_factory=dict)
    processes: int = 0
    """Loader processes that the shares belong to; 0: unknown, in checkpoints of older versions."""
    epoch: int = 0
    """The epoch in which shares without a position start."""

    def advance(self, batch: Batch) -> None:
        self.batches += 1
        self.shares[batch.share] = batch.position
        self.processes = batch.processes

    def next_epoch(self) -> "DataPosition":
        """Return the start of the epoch after the furthest one: where a stream that is split differently continues."""
        return DataPosition(epoch=1 + max([self.epoch, *(epoch for epoch, _ in self.shares.values())]))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "shares": {str(share): position for share, position in self.shares.items()}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "DataPosition":
        return cls(**{**data, "shares": {int(share): (epoch, done) for share, (epoch, done) in data["shares"].items()}})


@dataclass(frozen=True)
class SingleTextTokenizer:
    """Adapter of a tokenizer of many texts to a single text; unlike a lambda it can be pickled."""

    tokenizer: Callable[[str], Tensor]
    """Returns (1, context_length) for one text."""

    def __call__(self, text: str) -> Tensor:
        return self.tokenizer(text)[0]


class PairStream(IterableDataset[Batch]):
    """One rank's batches. Iterate it through `make_loader`."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        batch_size: int,
        image_size: int,
        tokenize: Tokenize,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start: DataPosition | None = None,
        text_multiple: int = 1,
    ) -> None:
        """`text_multiple`: the number of tokens of a batch is rounded up to a multiple of this."""
        self._spec, self._batch_size, self._image_size, self._seed = spec, batch_size, image_size, seed
        self._tokenize, self._text_multiple = lru_cache(TOKEN_CACHE_SIZE)(tokenize), text_multiple
        self._rank, self._world_size, self._start = rank, world_size, start or DataPosition()
        self._urls = expand_shards(spec.train.patterns)
        self._skipped = Skipped()

    @property
    def batch_bytes(self) -> int:
        """Bytes of the images of one batch, beside which those of the tokens are few."""
        return self._batch_size * 3 * self._image_size**2

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the token cache, for loader processes that are not forked (Python 3.14's default)."""
        return {**self.__dict__, "_tokenize": self._tokenize.__wrapped__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _tokenize=lru_cache(TOKEN_CACHE_SIZE)(state["_tokenize"]))

    def __iter__(self) -> Iterator[Batch]:
        """Yield this loader process's batches, without end. Raises DataError if an epoch has none."""
        info = get_worker_info()
        count, index = (info.num_workers, info.id) if info else (1, 0)
        start = self._start if self._start.processes in (0, count) else self._start.next_epoch()
        share = (index + start.batches) % count  # the loader starts with process 0: it continues at the rank's position
        epoch, done = start.shares.get(share, (start.epoch, 0))
        while True:
            batches = 0
            for number, samples in enumerate(self._sample_batches(epoch, self._rank * count + share, self._world_size * count)):
                if number < done:
                    batches += 1
                    continue
                rng = np.random.default_rng([self._seed, epoch, self._rank, share, number])
                batch = self._make_batch(samples, rng, share, (epoch, number + 1))
                if batch is not None:
                    batches += 1
                    batch.processes = count
                    yield batch
            if not batches:
                raise DataError(self._no_batch_message(), value=self._spec.train.shards)
            epoch, done = epoch + 1, 0

    def _no_batch_message(self) -> str:
        examples = "; ".join(self._skipped.examples) or "there are too few pairs"
        return f"the shards do not fill one batch of {self._batch_size} a worker ({examples}); lower batch_size or add data"

    def _sample_batches(self, epoch: int, share: int, shares: int) -> Iterator[list[Sample]]:
        """Yield usable samples, shuffled, in full batches in which no two have the same `distinct_key`."""
        held_back: deque[tuple[Sample, str]] = deque()
        batch: list[Sample] = []
        seen: set[str] = set()
        for item in self._shuffled(epoch, share, shares):
            held_back.append(item)
            if len(held_back) > 4 * self._batch_size:  # most samples have one value: allow it twice in a batch
                seen.clear()
            for _ in range(len(held_back)):
                sample, value = held_back.popleft()
                if value in seen:
                    held_back.append((sample, value))
                    continue
                batch.append(sample)
                seen |= {value} - {""}
                if len(batch) == self._batch_size:
                    yield batch
                    batch, seen = [], set()

    def _shuffled(self, epoch: int, share: int, shares: int) -> Iterator[tuple[Sample, str]]:
        """Yield samples drawn from a buffer of `data.shuffle` samples that is refilled from the shards."""
        rng = np.random.default_rng([self._seed, epoch, share])
        buffer: list[tuple[Sample, str]] = []
        for item in self._share_samples(epoch, share, shares):
            if len(buffer) < self._spec.shuffle:
                buffer.append(item)
                continue
            if not buffer:
                yield item
                continue
            index = int(rng.integers(len(buffer)))
            yield buffer[index]
            buffer[index] = item
        rng.shuffle(buffer)
        yield from buffer

    def _share_samples(self, epoch: int, share: int, shares: int) -> Iterator[tuple[Sample, str]]:
        urls = list(self._urls)
        if self._spec.shuffle:
            np.random.default_rng([self._seed, epoch]).shuffle(urls)
        by_shard = len(urls) >= SHARDS_PER_SHARE * shares
        for number, sample in enumerate(read_shards(urls[share::shares] if by_shard else urls, self._skipped)):
            if is_held_out(sample["__key__"], self._spec.train.holdout):
                continue
            value = self._distinct_value(sample)
            chooser = int(hashlib.sha256(value.encode()).hexdigest()[:8], 16) if value else number
            if by_shard or chooser % shares == share:
                yield sample, value

    def _distinct_value(self, sample: Sample) -> str:
        key = self._spec.train.distinct_key
        if key is None:
            return ""
        try:
            with sample_errors():
                return text_field(sample, key)
        except UnusableSample:  # without a value, a pair is distinct from all
            return ""

    def _make_batch(self, samples: list[Sample], rng: np.random.Generator, share: int, position: tuple[int, int]) -> Batch | None:
        """Decode the samples. A broken one is counted and replaced by a good one: every rank needs a full batch.

        Returns None if there is no good one.
        """
        train, images, tokens = self._spec.train, [], []
        for sample in samples:
            with self._skipped.unusable(sample):
                image = decode_image(image_bytes(sample, train.image_key))
                captions = captions_of(sample, train.caption_key)
                pixels = random_resized_crop(image, self._image_size, train.augment.crop_scale, rng)
                tokens.append(self._tokenize(captions[int(rng.integers(len(captions)))]))
                images.append(pixels)
        if not images:
            return None
        whole = [i % len(images) for i in range(self._batch_size)]
        images_BHWC = torch.from_numpy(np.stack([images[i] for i in whole]))
        tokens_BT = torch.stack([tokens[i] for i in whole])
        tokens_BT = tokens_BT[:, : longest_text(tokens_BT, self._text_multiple)].contiguous()
        return Batch(images_BHWC.permute(0, 3, 1, 2), tokens_BT, share, position, self._skipped)


def loader_processes(cpus: float) -> int:
    """Return the number of loader processes of a worker with that many CPUs: all but one, 1 to 8."""
    return min(8, max(1, int(cpus) - 1))


def make_loader(stream: PairStream, processes: int, *, pin: bool = False) -> DataLoader[Batch]:
    """Return a loader that prepares batches ahead in that many processes (0: on demand, in this process).

    `pin` puts them into pinned memory, for CUDA.
    """
    ahead = prefetch(processes, stream.batch_bytes) if processes else None
    return DataLoader(stream, batch_size=None, num_workers=processes, prefetch_factor=ahead, pin_memory=pin)


def prefetch(processes: int, batch_bytes: int) -> int:
    """Return the batches that each loader process prepares ahead."""
    return min(MAX_PREFETCH, max(1, PREFETCH_BYTES // (processes * batch_bytes)))


def count_pairs(spec: DataSpec) -> int:
    """Return the pairs in one epoch: from the spec, or counted by reading every shard once, which is logged now and then."""
    if spec.train.samples is not None:
        return spec.train.samples
    pairs, logged_at = 0, time.monotonic()
    for sample in read_shards(expand_shards(spec.train.patterns), Skipped()):
        pairs += not is_held_out(sample["__key__"], spec.train.holdout)
        if time.monotonic() - logged_at >= COUNT_LOG_SECONDS:
            logged_at = time.monotonic()
            log.info("counted %s pairs so far", f"{pairs:,}")
    return pairs
