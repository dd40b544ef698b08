"""The order, index and reader of a large data set: `python bench/scale.py [--shards 40000] [--batch-size 32768] [--workers 256]`.

Writes the index of a synthetic set (`scale_data.py`) into a local artifacts folder, and measures in processes of their own, which
have one thread: opening the index, the start of an epoch, seeks to a half and to nine tenths of it, the places of one worker's
part of a batch, and what a worker reads in its first batches, with one loader process and with several. The bytes of shards are
made when they are read, so times of reading are those of the code and of making the bytes. Appends one line of JSON for each
process to `bench/results/scale.jsonl`, and prints them.

`python bench/scale.py --parts FOLDER` measures the parts of a run that `docs/scale.md` counts with: registration of the real
shards in FOLDER, bytes of their index, and memory of the losses. `python bench/scale.py --report` writes the page's table from
these results and from the inputs, which `--set NAME=VALUE` changes (then it is printed only).
"""

import argparse
import json
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.spec import DataSpec
from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.data.stream.fetching import BlockReader, Found, ReadStatistics
from tinyclip_workers.data.stream.pairs import PairStream, read_ahead
from tinyclip_workers.data.stream.positions import DataPosition

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench import scale_parts, scale_report
from bench.hardware import cpu
from bench.scale_data import BLOCK, SyntheticSet, SyntheticStore

RESULTS = Path(__file__).parent / "results" / "scale.jsonl"
FOLDER = "datasets/synthetic/1"
EPOCH = 3
PLACES, SEGMENTS = 100, 16
"""Batches whose places are computed: without and with distinct batches."""
MAX_MEMORY = 6 << 30
"""Address space of a process that measures: a mistake ends it, not the machine."""


@dataclass(frozen=True)
class Case:
    """The measurements of one process."""

    shards: int
    samples: int
    batch_size: int
    workers: int
    processes: int
    distinct: bool
    shuffle: int
    shuffle_bytes: int
    batches: int
    """Batches that are read."""


@dataclass
class Measured:
    """Seconds of CPU and of the clock by operation, memory, and what was read."""

    cpu_seconds: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    memory_mb: dict[str, int] = field(default_factory=dict)
    """Peaks, beyond the memory after all imports."""
    read: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str, times: int = 1) -> Iterator[None]:
        started, started_cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds[name] = round((time.perf_counter() - started) / times, 5)
        self.cpu_seconds[name] = round((time.process_time() - started_cpu) / times, 5)


def main() -> None:
    arguments = parse()
    if arguments.measure:
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
        case, root, digest = json.loads(arguments.measure)
        print(json.dumps(asdict(measure(Case(**case), ArtifactsStore(root), digest))))
    elif arguments.report:
        scale_report.write(RESULTS, arguments.set)
    else:
        lines = scale_parts.measure(arguments.parts) if arguments.parts else measure_all(arguments)
        for line in lines:
            command = shlex.join(["python", *sys.argv])
            described = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "cpu": cpu(), "command": command} | line
            print(json.dumps(described, indent=1))
            with arguments.out.open("a") as file:
                file.write(json.dumps(described) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=40_000)
    parser.add_argument("--samples", type=int, default=10_000, help="of a shard")
    parser.add_argument("--batch-size", type=int, default=32_768)
    parser.add_argument("--workers", type=int, default=256)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 8], help="loader processes of a worker")
    parser.add_argument("--shuffle", type=int, default=10_000)
    parser.add_argument("--shuffle-bytes", type=int, default=1 << 30)
    parser.add_argument("--batches", type=int, default=100, help="batches to read")
    parser.add_argument("--parts", type=Path, metavar="FOLDER", help="measure registration, index and losses: a folder of shards")
    parser.add_argument("--report", action="store_true", help="write the table of docs/scale.md")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="inputs of the report to change")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure_all(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Write the index and measure every case in a process of its own."""
    with tempfile.TemporaryDirectory() as root:
        data, store, writing = SyntheticSet(arguments.shards, arguments.samples, distinct=True), ArtifactsStore(root), Measured()
        with writing.timed("write"):
            digest = data.write(store, FOLDER)
        files = {file.path.rsplit("/", 1)[-1]: file.bytes for file in store.find(FOLDER)}
        yield {"kind": "files", "shards": data.shards, "samples": data.samples, "bytes": files, **writing.cpu_seconds}
        for distinct in (False, True):
            for processes in arguments.processes:
                case = Case(
                    arguments.shards, arguments.samples, arguments.batch_size, arguments.workers, processes, distinct,
                    arguments.shuffle, arguments.shuffle_bytes, arguments.batches,
                )  # fmt: skip
                command = [sys.executable, __file__, "--measure", json.dumps([asdict(case), root, digest])]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                yield {"kind": "order", **asdict(case), **json.loads(output)}


def measure(case: Case, store: ArtifactsStore, digest: str) -> Measured:
    """Measure as worker number 17 of a group."""
    data, found = SyntheticSet(case.shards, case.samples, distinct=True), Measured()
    before = memory_mb("VmRSS")
    with found.timed("open the index"):
        index = data.open(store, FOLDER, digest)
    found.memory_mb["open the index"] = memory_mb("VmHWM") - before
    with found.timed("start an epoch: order"):
        stream = stream_of(case, index, DataPosition(EPOCH))
        order = stream._order.epoch(EPOCH)
    with found.timed("start an epoch: places of the first batch"):
        order.batch(0, stream.slots)
    for percent in (50, 90):
        with found.timed(f"seek to {percent}%: order and places"):
            position = DataPosition(EPOCH + percent, stream.batches * percent // 100)
            stream = stream_of(case, index, position)
            stream._order.epoch(position.epoch).batch(position.batch, stream.slots)
    count = SEGMENTS if case.distinct else PLACES
    with found.timed("places of a batch, one worker", times=count):
        for number in range(count):
            order.batch((stream.batches // 3 + number) % stream.batches, stream.slots)
    found.memory_mb["order and places"] = memory_mb("VmHWM") - before
    with patch("tinyclip_workers.runtime.user_files.open_filesystem", lambda url: (SyntheticStore(data), url)):
        read(case, stream_of(case, index, DataPosition(EPOCH)), found)
    found.memory_mb["order, places and reading of one loader process"] = memory_mb("VmHWM") - before
    return found


def stream_of(case: Case, index: DatasetIndex, start: DataPosition) -> PairStream:
    train = {"shards": "s3://synthetic/{000000..000001}.tar"} | ({"distinct_key": "json.concept"} if case.distinct else {})
    spec = DataSpec.model_validate({"train": train, "shuffle": case.shuffle, "shuffle_bytes": case.shuffle_bytes})
    return PairStream(
        spec, index, batch_size=case.batch_size, image_size=224, tokenize=lambda _: torch.ones(4), seed=1,
        rank=min(17, case.workers - 1), world_size=case.workers, start=start,
    )  # fmt: skip


def read(case: Case, stream: PairStream, found: Measured) -> None:
    """Read the worker's part of the first batches as its loader processes do, one after the other."""
    parts, total, blocks, held, used = stream.parts(case.processes), ReadStatistics(), set[int](), 0, 0
    with found.timed("read and check a batch, and make its bytes", times=case.batches):
        for slots in parts:
            order = stream._order.epoch(EPOCH)
            reader = BlockReader(order, slots, stream._max_bytes(slots), total)
            places = [order.batch(number, slots) for number in range(min(case.batches, stream.batches))]
            for place in read_ahead(iter(places), reader):
                used += sum(sample_bytes(each) for each in reader.read(place))
                held = max(held, reader._held)
                blocks |= set(place.block_M.tolist())
            reader.close()
    found.memory_mb["pairs that a loader process holds"] = held >> 20
    found.read = {
        "processes": len(parts), "batches": case.batches, "pairs": case.batches * len(stream.slots), "bytes of the pairs": used,
        "bytes": total.bytes, "requests": total.requests, "blocks": len(blocks),
    }  # fmt: skip


def sample_bytes(found: Found) -> int:
    """Return the bytes of a sample's files with their headers in a tar."""
    assert found.sample is not None
    contents = [content for name, content in found.sample.items() if not name.startswith("__")]
    return sum(BLOCK - (-len(content) // BLOCK) * BLOCK for content in contents)


def memory_mb(name: str) -> int:
    """Return a field of this process's memory: `VmRSS`, or its peak, `VmHWM`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) >> 10


if __name__ == "__main__":
    main()
