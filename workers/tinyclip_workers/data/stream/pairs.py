"""One worker's pairs: read in their order, decoded, and put together to parts of batches, one part a loader process.

The view of an image and the caption of a pair are drawn for the sample and the epoch.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tinyclip.schemas.spec import DataSpec
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from tinyclip_workers.data.augment import VIEW, View, crop_of, draw_view
from tinyclip_workers.data.crops import Crop
from tinyclip_workers.data.decoding import decode_crops
from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.data.operations import apply_operations
from tinyclip_workers.data.reinforcement.views import StoredView, StoredViews
from tinyclip_workers.data.samples import Sample, image_bytes
from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.data.stream.captions import all_captions, draw_translations
from tinyclip_workers.data.stream.fetching import AHEAD, BlockReader, Found, ReadStatistics
from tinyclip_workers.data.stream.inputs import TeacherInputs, Tokenize
from tinyclip_workers.data.stream.order import Place, SampleOrder
from tinyclip_workers.data.stream.positions import DataPosition
from tinyclip_workers.model.preprocessing import PixelInput

TOKEN_CACHE_SIZE = 100_000
"""Texts whose tokens each process caches."""

MIN_READ_BYTES = 256 << 20
"""Limit of the memory of a loader process for pairs that it has read, if its share of `shuffle_bytes` is less."""


@dataclass(frozen=True)
class _Pair:
    pixels: Sequence[Any]
    """The student's first, then those of teachers; likewise the tokens (T)."""
    tokens: Sequence[Tensor]
    view: View
    caption: str
    targets: list[tuple[Tensor, Tensor]] | None = None


class PairStream(IterableDataset[Batch]):
    """One worker's batches. Iterate it through `BatchLoader`."""

    def __init__(
        self,
        spec: DataSpec,
        index: DatasetIndex,
        *,
        batch_size: int,
        image_size: int,
        tokenize: Tokenize,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start: DataPosition | None = None,
        text_multiple: int = 1,
        stored: StoredViews | None = None,
        readers: int | None = None,
        trims: bool = True,
        teacher_inputs: TeacherInputs | None = None,
        language: str | None = None,
    ) -> None:
        """`batch_size`: of all workers together. `text_multiple`: the tokens of a batch are rounded up to a multiple of this.

        `image_size`, `tokenize` and `trims` (`TextInput`) are the student's. `language`: of all pairs, instead of dividing them.

        Raises DataError if an epoch does not fill one batch.
        """
        self._spec, self._seed, self.index = spec, seed, index
        self.trims, self.text_multiple = trims, text_multiple
        self.teacher_inputs = teacher_inputs or TeacherInputs()
        self._forms = [PixelInput(image_size), *self.teacher_inputs.pixels]
        self._tokenizers = [_cached(each) for each in (tokenize, *(text.tokenize for text in self.teacher_inputs.texts))]
        self._read_languages: list[str | None] = [None, *(text.language for text in self.teacher_inputs.texts)]
        self._start, self._stored = start or DataPosition(), stored
        if stored is not None and stored.first_caption_only and spec.train.languages:
            raise DataError("a reinforcement of the first captions has none in other languages; make one with captions: all")
        self._order = SampleOrder(
            index,
            batch_size=batch_size,
            seed=seed,
            shuffle=spec.shuffle,
            shuffle_bytes=spec.shuffle_bytes,
            distinct=spec.train.distinct_key is not None,
            readers=readers,
            languages=len(spec.train.languages) if language is None else 0,
        )
        self._language = None if language is None else spec.train.languages.index(language)
        if not self._order.batches:
            raise DataError(
                f"the {index.pairs} pairs do not fill one batch of {batch_size}; lower batch_size or add data",
                value=spec.train.shards,
            )
        self._first_samples = index.first_samples()
        self.slots = range(rank * batch_size // world_size, (rank + 1) * batch_size // world_size)
        """This worker's slots of every batch."""
        self._skipped = Skipped()
        self.statistics = ReadStatistics()
        """Counts of what this process has read."""

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return self._order.batches

    @property
    def batch_bytes(self) -> int:
        """Bytes of the images of one batch of this worker, beside which those of the tokens are few."""
        return len(self.slots) * 3 * sum(form.size**2 for form in self._forms)

    def parts(self, processes: int) -> list[range]:
        """Divide the worker's slots among at most that many loader processes, by readers."""
        readers = self._order.readers_of(self.slots)
        count, share = min(max(1, processes), len(readers)), self._order.share
        limits = [readers[len(readers) * part // count] * share for part in range(1, count)]
        edges = [self.slots.start, *limits, self.slots.stop]
        return [range(start, stop) for start, stop in pairwise(edges)]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the token cache, for loader processes that are not forked (Python 3.14's default)."""
        return {**self.__dict__, "_tokenizers": [tokenize.__wrapped__ for tokenize in self._tokenizers]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _tokenizers=[_cached(tokenize) for tokenize in state["_tokenizers"]])

    def __iter__(self) -> Iterator[Batch]:
        """Yield this loader process's parts of the batches, without end. An error ends it, and is yielded: see `BatchLoader`."""
        info = get_worker_info()
        slots = self.parts(info.num_workers)[info.id] if info else self.slots
        try:
            yield from self._parts(slots)
        except DataError as error:
            if info is None:
                raise
            yield error  # type: ignore[misc]  # raised from a loader process it would become another error

    def _parts(self, slots: range) -> Iterator[Batch]:
        """Raises DataError if a shard has changed."""
        epoch, first = self._start.epoch, self._start.batch
        while True:
            order = self._order.epoch(epoch)
            reader = BlockReader(order, slots, self._max_bytes(slots), self.statistics)
            try:
                places = (order.batch(number, slots) for number in range(first, self._order.batches))
                for number, place in enumerate(read_ahead(places, reader), start=first):
                    yield self._make_part(reader.read(place), place.language_M, epoch, number)
            finally:
                reader.close()
            epoch, first = epoch + 1, 0

    def _max_bytes(self, slots: range) -> int:
        """Return the limit of the memory for pairs that were read for some slots."""
        share = len(self._order.readers_of(slots)) / self._order.readers
        return max(MIN_READ_BYTES, int(self._spec.shuffle_bytes * share))

    def _make_part(self, found: Sequence[Found], language_M: NDArray[np.int64] | None, epoch: int, number: int) -> Batch:
        """Decode pairs. One that cannot be used is counted and marked."""
        languages = [self._language] * len(found) if language_M is None else language_M.tolist()
        pairs = [self._make_pair(each, language, epoch) for each, language in zip(found, languages, strict=True)]
        good = next((pair for pair in pairs if pair), None)
        if good is None:
            pixels = [np.zeros((form.size, form.size, 3), np.uint8) for form in self._forms]
            good = _Pair(pixels, self._tokens([""] * len(self._tokenizers)), np.ones(len(VIEW), np.float32), "")
        whole = [pair or good for pair in pairs]
        images_BCHW, *teacher_images = [
            torch.from_numpy(np.stack(each)).permute(0, 3, 1, 2) for each in zip(*(pair.pixels for pair in whole), strict=True)
        ]
        tokens_BT, *teacher_tokens = [torch.stack(each) for each in zip(*(pair.tokens for pair in whole), strict=True)]
        return Batch(
            images_BCHW=images_BCHW,
            tokens_BT=tokens_BT,
            views_BP=torch.from_numpy(np.stack([pair.view for pair in whole])),
            samples_B=torch.tensor([int(self._first_samples[each.shard]) + each.row for each in found]),
            good_B=torch.tensor([pair is not None for pair in pairs]),
            position=DataPosition(epoch, number + 1),
            skipped=self._skipped,
            targets=_stack_targets([pair.targets for pair in whole]) if self._stored else None,
            teacher_images=teacher_images,
            teacher_tokens=teacher_tokens,
        )

    def _make_pair(self, found: Found, language: int | None, epoch: int) -> _Pair | None:
        """Decode a pair; the view and the caption are drawn for the sample and the epoch. Returns None if it cannot be used."""
        if found.sample is None:
            self._skipped.add_sample(found.key, found.reason)
            return None
        if self._stored is None:
            return self._decode(found.sample, found, language, epoch)
        view = self._stored.view(found.shard, found.row, epoch)
        if view is None:
            self._skipped.add_sample(found.key, "it could not be read when its embeddings were stored")
            return None
        pair = self._decode(found.sample, found, language, epoch, view)
        return pair and replace(pair, targets=self._stored.targets(found.shard, found.row, epoch, pair.caption))

    def _decode(
        self, sample: Sample, found: Found, language: int | None, epoch: int, stored: StoredView | None = None
    ) -> _Pair | None:
        """Decode the crop of a view (`None`: one that is drawn), and tokenize a caption."""
        train, view = self._spec.train, stored.view if stored else None
        with self._skipped.unusable(sample):
            rng = np.random.default_rng([self._seed, epoch, int(self._first_samples[found.shard]) + found.row])
            captions = self._draw_captions(sample, found, language, rng)

            def crop(width: int, height: int) -> Crop:
                nonlocal view
                view = draw_view(train.augment, width, height, rng) if view is None else view
                return crop_of(view)

            pixels = decode_crops(image_bytes(sample, train.image_key), self._forms, crop)
            assert view is not None
            if stored is not None and stored.operations:
                pixels = [apply_operations(square, stored.operations) for square in pixels]
            return _Pair(pixels, self._tokens(captions), view, captions[0])
        return None

    def _draw_captions(self, sample: Sample, found: Found, language: int | None, rng: np.random.Generator) -> list[str]:
        """Return what student and teachers read. Raises any exception."""
        if language is not None:
            return draw_translations(sample, found, self._spec.train, language, self._read_languages, rng)
        captions = all_captions(sample, found, self._spec.train)
        if self._stored is not None and self._stored.first_caption_only:
            del captions[1:]
        return [captions[int(rng.integers(len(captions)))]] * len(self._tokenizers)

    def _tokens(self, texts: Sequence[str]) -> list[Tensor]:
        return [tokenize(text) for tokenize, text in zip(self._tokenizers, texts, strict=True)]


def _cached(tokenize: Tokenize) -> Any:
    return lru_cache(TOKEN_CACHE_SIZE)(tokenize)


def read_ahead(places: Iterator[Place], reader: BlockReader) -> Iterator[Place]:
    """Yield places while the blocks of those that follow are being read."""
    waiting: deque[Place] = deque()
    for place in places:
        reader.prefetch(place)
        waiting.append(place)
        if len(waiting) > AHEAD:
            yield waiting.popleft()
    yield from waiting


def _stack_targets(targets: Sequence[list[tuple[Tensor, Tensor]] | None]) -> list[tuple[Tensor, Tensor]]:
    """Return stored embeddings (B, E) by teacher. Pairs without them are bad, and are replaced."""
    some = next((each for each in targets if each is not None), None)
    if some is None:
        return []
    whole = [each or some for each in targets]
    return [
        (torch.stack([each[teacher][0] for each in whole]), torch.stack([each[teacher][1] for each in whole]))
        for teacher in range(len(some))
    ]
