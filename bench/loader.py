"""Compare the images per CPU-second of loaders at 224 px from about 500x375 JPEGs, in one run.

    python bench/loader.py --source "FOLDER/train-{000000..000001}.tar" [--mosaicml LIB] [--rounds 3]

The photos of `--source` are scaled to the area of `--pixels`, saved as JPEGs of quality 90 (4:2:0) and written as WebDataset and
MDS shards. Every loader decodes them, takes a random crop (0.9 to 1.0 of the area), resizes it with an antialiased bicubic filter
and yields uint8 batches (64, 3, 224, 224) with their captions; no text is tokenized. Each measurement is a process of its own,
with one thread for computing. Rounds go through the loaders in alternating order. CPU time is that of the process with all its
threads and loader processes, after a warm-up. `--mosaicml` is a folder into which `pip install --target LIB --no-deps` put
mosaicml-streaming and what it imports; without it this peer is left out.

`loader_data.py` writes the shards, `loader_peers.py` has the loaders.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import simplejpeg
import torch
from hardware import cpu
from loader_data import PICTURES, ShardFolder, write_shards
from loader_peers import LOADERS, SIZE
from PIL import Image, features
from recorded import Recorded
from tinyclip_workers.data.shards import read_shard
from tinyclip_workers.model.layouts import PRESETS
from tinyclip_workers.model.tokenizers import make_tokenizer

OUT = Path(__file__).parent / "results" / "loader.jsonl"
WARM_UP_BATCHES = 4
OURS = {"tinyclip", "tinyclip decoding"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="shards of photos")
    parser.add_argument("--pixels", type=int, nargs=2, default=(500, 375), help="width and height, for the area")
    parser.add_argument("--pictures", choices=PICTURES, default="upscaled", help="mosaic: photos side by side, as they are")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[0, 2], help="loader processes; 0: in the process itself")
    parser.add_argument("--only", nargs="+", default=list(LOADERS), choices=list(LOADERS), help="loaders")
    parser.add_argument("--mosaicml", default="", help="folder with mosaicml-streaming")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--measure", nargs=3, metavar=("LOADER", "PROCESSES", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, processes, folder = arguments.measure
        print(json.dumps(measure(name, int(processes), ShardFolder(Path(folder)))))
        return
    with tempfile.TemporaryDirectory() as folder:
        lines = list(run(arguments, Path(folder)))
    Recorded(arguments.out).keep(*lines)
    print(json.dumps(lines, indent=1))


def run(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Measure every loader with every number of processes; return one line for each number, and one for the parts of a stream."""
    if arguments.mosaicml:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), arguments.mosaicml]))
        sys.path.append(arguments.mosaicml)
    pictures = PICTURES[arguments.pictures](arguments.source, arguments.pixels)
    facts = write_shards(folder, pictures, arguments.images, mds=bool(arguments.mosaicml))
    names = [name for name in arguments.only if name != "mosaicml-streaming" or arguments.mosaicml]
    if len(names) < len(arguments.only):
        print("mosaicml-streaming is left out: give --mosaicml a folder that has it", file=sys.stderr)
    about = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}", "cpu": cpu(), "versions": versions(), "pictures": arguments.pictures, **facts,
    }  # fmt: skip
    rates: dict[int, dict[str, list[float]]] = {count: {name: [] for name in names} for count in arguments.processes}
    parts: list[dict[str, float]] = []
    for number in range(arguments.rounds):
        parts.append(in_new_process("parts", 0, folder))
        for count in arguments.processes:
            for name in names if number % 2 == 0 else reversed(names):
                rates[count][name].append(in_new_process(name, count, folder)["images_per_cpu_second"])
                print(number, count, name, rates[count][name][-1], file=sys.stderr)
    lines = [{**about, "loader_processes": count, **summary(rates[count])} for count in arguments.processes]
    microseconds = {part: round(statistics.median(one[part] for one in parts), 1) for part in parts[0]}
    return [*lines, {**about, "microseconds_an_image": microseconds}]


def versions() -> dict[str, str | None]:
    found = {"torch": torch.__version__, "pillow": features.version("pil"), "simplejpeg": simplejpeg.__version__}
    return {**found, "libjpeg_turbo of pillow": features.version("libjpeg_turbo")}


def in_new_process(name: str, processes: int, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--source", "", "--measure", name, str(processes), str(folder)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def summary(rates: dict[str, list[float]]) -> dict[str, Any]:
    medians = {name: round(statistics.median(found), 1) for name, found in rates.items()}
    best = max((name for name in medians if name not in OURS), key=lambda name: medians[name])
    ratios = {}
    for name in sorted(OURS & rates.keys()):
        of_rounds = [own / other for own, other in zip(rates[name], rates[best], strict=True)]
        ratios[name] = round(statistics.median(of_rounds), 2)
    return {"images_per_cpu_second": medians, "rounds": rates, "best_other": best, "ratios": ratios}


def measure(name: str, processes: int, folder: ShardFolder) -> dict[str, float]:
    torch.set_num_threads(1)
    if name == "parts":
        return measure_parts(folder)
    batches = LOADERS[name](folder, processes)
    for _ in range(WARM_UP_BATCHES):
        next(batches)
    # The last batches are left out: while they are read, loader processes end.
    left = folder.images // folder.batch_size - WARM_UP_BATCHES - (4 * processes + 1)
    before, images = cpu_seconds(), 0
    for _ in range(left):
        images_BCHW, captions = next(batches)
        assert images_BCHW.shape == (folder.batch_size, 3, SIZE, SIZE)
        assert (images_BCHW.dtype, len(captions)) == (torch.uint8, folder.batch_size)
        images += len(images_BCHW)
    return {"images_per_cpu_second": round(images / (cpu_seconds() - before), 1)}


def cpu_seconds() -> float:
    """Return the CPU time of this process, its threads and its live children."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(found.user + found.system for found in times)


def measure_parts(folder: ShardFolder) -> dict[str, float]:
    """Return microseconds of CPU time for an image: the least that any loader needs, and what a stream does beside it."""
    started = time.process_time()
    samples = [sample for url in folder.shards[:2] for sample in read_shard(url)]
    reading = time.process_time() - started
    jpegs, captions = [sample["jpg"] for sample in samples], [sample["txt"].decode() for sample in samples]
    tokenize = make_tokenizer(PRESETS["ViT-B-32"])
    tokenize(captions)  # the tokenizer remembers words

    def seconds(part: Callable[[], object]) -> float:
        started = time.process_time()
        part()
        return time.process_time() - started

    taken = {
        "reading the tar": reading,
        "decoding, simplejpeg": seconds(lambda: [simplejpeg.decode_jpeg(data, "RGB") for data in jpegs]),
        "decoding, PIL": seconds(lambda: [Image.open(io.BytesIO(data)).load() for data in jpegs]),
        "tokenizing a caption": seconds(lambda: [tokenize(caption) for caption in captions]),
    }
    return {part: 1e6 * time_of_all / len(samples) for part, time_of_all in taken.items()}


if __name__ == "__main__":
    main()
