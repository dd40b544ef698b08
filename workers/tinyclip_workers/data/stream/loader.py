"""The loader: joins the parts that loader processes make to full batches, ahead of their use."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from torch import Tensor
from torch.utils.data import DataLoader

from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.stream.batches import Batch, fill, join
from tinyclip_workers.data.stream.pairs import PairStream
from tinyclip_workers.data.stream.positions import DataPosition
from tinyclip_workers.model.towers import longest_text

PREFETCH_BYTES, MAX_PREFETCH = 1 << 30, 4
"""Images that the loader processes of a worker hold ready in shared memory, and parts of batches that each one does."""
MAX_PROCESSES = 16
"""Loader processes of a worker; 14,000 pairs/s, as many as a fast GPU trains on, take 15 of them (docs/scale.md)."""


def loader_processes(cpus: float) -> int:
    """Return the number of loader processes of a worker with that many CPUs: all but one, 1 to MAX_PROCESSES."""
    return min(MAX_PROCESSES, max(1, int(cpus) - 1))


class BatchLoader:
    """Prepares the batches of a stream ahead, in loader processes (0: on demand, in this process)."""

    def __init__(self, stream: PairStream, processes: int, *, pin: bool = False) -> None:
        """`pin`: put batches into pinned memory, for CUDA."""
        self._stream, self._pin = stream, pin
        self.processes = len(stream.parts(processes)) if processes else 0
        self.prefetch = prefetch(stream.batch_bytes) if self.processes else None

    def __iter__(self) -> Iterator[Batch]:
        """Return an endless iterator. It raises DataError if a shard has changed, or if no pair of an epoch can be used."""
        loader = DataLoader(self._stream, batch_size=None, num_workers=self.processes, prefetch_factor=self.prefetch)
        parts = iter(loader)  # starts processes, which must not be forks of another thread
        return self._batches(map(self._finish, self._complete(self._joined(_raising(parts)))))

    def _batches(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield batches; where more than one process makes them, the next one is prepared in a thread."""
        if self.processes <= 1 and not self._pin:
            yield from batches
            return
        with ThreadPoolExecutor(1, thread_name_prefix="join") as thread:  # joining and pinning take as long as a short step
            following = thread.submit(next, batches)
            while True:
                batch = following.result()
                following = thread.submit(next, batches)
                yield batch

    def _joined(self, parts: Iterator[Batch]) -> Iterator[Batch]:
        skipped: dict[int, Skipped] = {}
        while True:
            several = [next(parts) for _ in range(max(1, self.processes))]  # one of each process, in their order
            skipped |= {process: part.skipped for process, part in enumerate(several)}
            yield join(several, Skipped.sum([self._stream.index.skipped, *skipped.values()]))

    def _finish(self, batch: Batch) -> Batch:
        """Shorten the texts, and pin."""
        further = zip(batch.teacher_tokens, self._stream.teacher_inputs.texts, strict=True)
        batch = replace(
            batch,
            tokens_BT=self._shortened(batch.tokens_BT, trims=self._stream.trims),
            teacher_tokens=[self._shortened(tokens_BT, trims=text.trims) for tokens_BT, text in further],
        )
        return batch.pin_memory() if self._pin else batch

    def _shortened(self, tokens_BT: Tensor, *, trims: bool) -> Tensor:
        return tokens_BT[:, : longest_text(tokens_BT, self._stream.text_multiple)].contiguous() if trims else tokens_BT

    def _complete(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Give each bad pair the place of a good one: every worker needs a full batch. Raises DataError."""
        spare: Batch | None = None
        for batch in batches:
            if bool(batch.good_B.all()):
                spare = batch
                yield batch
                continue
            if not bool(batch.good_B.any()) and spare is None:
                batch, ahead = self._first_good(batch, batches)
                spare = batch
                yield from (replace(batch, position=position) for position in ahead)
            spare = fill(batch, spare)
            yield spare

    def _first_good(self, batch: Batch, batches: Iterator[Batch]) -> tuple[Batch, list[DataPosition]]:
        """Return the first batch with a good pair, and the positions of those before it. Raises DataError."""
        ahead: list[DataPosition] = []
        while not bool(batch.good_B.any()):
            ahead.append(batch.position)
            if len(ahead) > self._stream.batches:
                examples = "; ".join(batch.skipped.examples)
                raise DataError(f"no pair of an epoch can be used ({examples}); check keys and data")
            batch = next(batches)
        return fill(batch, batch), ahead


def prefetch(batch_bytes: int) -> int:
    """Return the parts of batches that each loader process prepares ahead; all of a batch have `batch_bytes`."""
    return min(MAX_PREFETCH, max(1, PREFETCH_BYTES // batch_bytes))


def _raising(parts: Iterator[Batch]) -> Iterator[Batch]:
    """Raise the errors of loader processes."""
    for part in parts:
        if isinstance(part, Exception):
            raise part
        yield part
