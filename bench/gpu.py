"""Speed and memory of training steps on one device: `python bench/gpu.py [--presets …] [--precisions …] [--compile off on] …`.

Every combination of the options runs the step of a job (teacher, student, losses, optimizer) on synthetic pairs, or with
`--shards` on real ones through a job's loader. Weights are random. Prints a table and appends one line of JSON for each
combination: pairs a second, MFU, share of time that the step waits for data, peak of memory, machine, date and command.

MFU counts two operations for each multiply-accumulate of the models, three passes for the student and one for the teacher,
relative to the device's dense peak (`--peak-tflops`, known for common GPUs). Passes that are repeated to save memory do not
count.

On a machine without a GPU: `python bench/gpu.py --device cpu --presets tiny --teacher tiny --precisions fp32 --batch 8 --steps 2
--compile off --out /tmp/gpu.jsonl`
"""

import argparse
import gc
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tinyclip.schemas import JobSpec, Layout
from tinyclip.schemas.spec import StudentSpec
from tinyclip_workers.data.augment import VIEW
from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.index.dataset_index import index_shards
from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.data.stream.inputs import SingleTextTokenizer
from tinyclip_workers.data.stream.loader import BatchLoader, loader_processes
from tinyclip_workers.data.stream.pairs import PairStream
from tinyclip_workers.data.stream.positions import DataPosition
from tinyclip_workers.model.architecture import build_clip, resolve_layout
from tinyclip_workers.model.layouts import PRESETS
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.model.summary import image_macs, text_macs
from tinyclip_workers.model.tokenizers import make_tokenizer
from tinyclip_workers.model.towers import length_multiple
from tinyclip_workers.training.acceleration import fast_kernels
from tinyclip_workers.training.auto_settings.micro_batch import measure_micro_batch
from tinyclip_workers.training.stage import resolve_stage
from tinyclip_workers.training.teachers.frozen import FrozenTeacher
from tinyclip_workers.training.trainer import StageTrainer

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench import hardware

RESULTS = Path(__file__).parent / "results" / "gpu.jsonl"
TINY: dict[str, Any] = {
    "embed_dim": 32,
    "image": {"layers": 2, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 32},
    "text": {"layers": 2, "width": 64, "heads": 2},
}
PEAK_TFLOPS = {
    "H100 PCIe": {"bf16": 756, "fp16": 756, "tf32": 378, "fp32": 51},
    "H100": {"bf16": 989, "fp16": 989, "tf32": 494, "fp32": 67},
    "H200": {"bf16": 989, "fp16": 989, "tf32": 494, "fp32": 67},
    "A100": {"bf16": 312, "fp16": 312, "tf32": 156, "fp32": 19.5},
    "A10G": {"bf16": 70, "fp16": 70, "tf32": 35, "fp32": 31},
    "L40S": {"bf16": 362, "fp16": 362, "tf32": 183, "fp32": 91},
    "L4": {"bf16": 121, "fp16": 121, "tf32": 60, "fp32": 30},
    "V100": {"fp16": 125, "fp32": 15.7},
    "T4": {"fp16": 65, "fp32": 8.1},
}
"""Dense peaks in 10^12 operations a second, from the data sheets; the first name that the device's contains counts."""


@dataclass(frozen=True)
class Case:
    """One combination of the options."""

    preset: str
    precision: str
    compile: bool
    checkpointing: bool
    micro_batch: int | str | None


@dataclass(frozen=True)
class Measured:
    """The sums over the measured steps."""

    steps: int
    seconds: float
    waiting: float
    tokens: int
    """The lengths of the texts, of all steps."""


def main() -> None:
    arguments = parse()
    device = torch.device(arguments.device)
    combinations = itertools.product(
        arguments.presets, arguments.precisions, arguments.compile, arguments.checkpointing, arguments.micro_batch
    )
    found = []
    for case in itertools.starmap(Case, combinations):
        result = {**machine(device), "command": " ".join(["python", *sys.argv]), **vars(case), **run(case, arguments, device)}
        found.append(result)
        with arguments.out.open("a") as file:
            file.write(json.dumps(result) + "\n")
        _clear(device)
    show(found)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    switch = {"off": False, "on": True}
    parser.add_argument("--presets", nargs="+", default=["TinyCLIP-ViT-39M-16-Text-19M", "TinyCLIP-ViT-40M-32-Text-19M"])
    parser.add_argument("--teacher", default="ViT-B-16", help="a preset; `tiny`: a small one")
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32"], choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--compile", nargs="+", default=[False, True], type=switch.__getitem__, metavar="off|on")
    parser.add_argument("--checkpointing", nargs="+", default=[False], type=switch.__getitem__, metavar="off|on")
    parser.add_argument("--micro-batch", nargs="+", default=["auto"], type=_micro_batch, metavar="auto|whole|N")
    parser.add_argument("--batch", type=int, default=1024, help="pairs a step")
    parser.add_argument("--text-length", type=int, default=32, help="tokens of the synthetic texts")
    parser.add_argument("--shards", help="real pairs: a path, glob or brace list of WebDataset shards")
    parser.add_argument("--image-key", nargs="+", default=["jpg", "png", "webp"])
    parser.add_argument("--caption-key", default="txt")
    parser.add_argument("--cpus", type=int, default=8, help="CPUs of the worker, all but one of which decode")
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--peak-tflops", type=float, help="the device's dense peak in the precision, for MFU")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def run(case: Case, arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Run the steps of one combination; returns its numbers, or the `error` of one that does not fit into memory."""
    spec = spec_of(case, arguments)
    try:
        with fast_kernels(case.precision, device):
            trainer, teacher = trainer_of(spec, arguments.teacher, device)
            batches = real_pairs(trainer, arguments.cpus) if arguments.shards else synthetic_pairs(trainer, arguments.text_length)
            if case.micro_batch == "auto":
                result, batches = measure_micro_batch(trainer, batches)
                trainer.micro_batch = result.micro_batch
            measure(trainer, batches, arguments.warm_up)
            _clear(device)
            measured = measure(trainer, batches, arguments.steps)
    except torch.OutOfMemoryError as error:
        return {"error": str(error).splitlines()[0]}
    return numbers(measured, trainer, teacher, arguments.peak_tflops or peak_tflops(case.precision, device))


def spec_of(case: Case, arguments: argparse.Namespace) -> JobSpec:
    student = TINY if case.preset == "tiny" else {"preset": case.preset}
    train = {"shards": arguments.shards or "synthetic", "image_key": arguments.image_key, "caption_key": arguments.caption_key}
    document = {
        "name": "bench",
        "teacher": {"model": "local-dir:not-read-here"},
        "data": {"train": train},
        "stages": [{"name": "bench", "inherit": "none", "student": student, "train": {"steps": 10**6}}],
        "objective": {"affinity": 1.0},
        "batch_size": arguments.batch,
        "precision": case.precision,
        "compile": case.compile,
        "gradient_checkpointing": case.checkpointing,
        "micro_batch": case.micro_batch,
        "resources": {"cpus_per_worker": arguments.cpus},
    }
    return JobSpec.model_validate(document)


def trainer_of(spec: JobSpec, teacher: str, device: torch.device) -> tuple[StageTrainer, Layout]:
    """Make a trainer with random weights; also returns the teacher's layout."""
    torch.manual_seed(0)
    layout = resolve_layout(StudentSpec.model_validate(TINY), None) if teacher == "tiny" else PRESETS[teacher]
    stage = resolve_stage(spec, 0, None, None, 0)
    frozen = FrozenTeacher(build_clip(layout), 50.0).to(device)
    return StageTrainer(spec, stage, build_clip(stage.layout), [frozen], device, mean=OPENAI_MEAN, std=OPENAI_STD), layout


def synthetic_pairs(trainer: StageTrainer, length: int) -> Iterator[Batch]:
    """Yield one batch for ever, whose texts have this many tokens."""
    generator, count = torch.Generator().manual_seed(0), trainer.stage.batch_size
    size, text = trainer.stage.layout.image_size, trainer.stage.layout.text
    images_BCHW = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    tokens_BT = torch.randint(1, text.vocab_size - 1, (count, min(length, text.context_length)), generator=generator)
    tokens_BT[:, -1] = text.vocab_size - 1
    views_BP, numbers_B = torch.ones(count, len(VIEW)), torch.arange(count)
    batch = Batch(images_BCHW, tokens_BT, views_BP, numbers_B, torch.ones(count, dtype=torch.bool), DataPosition(0, 1), Skipped())
    return itertools.repeat(batch.pin_memory() if trainer.device.type == "cuda" else batch)


def real_pairs(trainer: StageTrainer, cpus: int) -> Iterator[Batch]:
    """Yield the batches of the shards, through the loader of a job's worker with that many CPUs."""
    layout, on_gpu = trainer.stage.layout, trainer.device.type == "cuda"
    stream = PairStream(
        trainer.spec.data,
        index_shards(trainer.spec.data.train),
        batch_size=trainer.stage.batch_size,
        image_size=layout.image_size,
        tokenize=SingleTextTokenizer(make_tokenizer(layout)),
        seed=0,
        text_multiple=length_multiple(trainer.device),
    )
    return iter(BatchLoader(stream, loader_processes(cpus), pin=on_gpu))


def measure(trainer: StageTrainer, batches: Iterator[Batch], steps: int) -> Measured:
    """Take steps. Each one ends by reading its loss, so the device has nothing left to compute."""
    waiting, tokens, started = 0.0, 0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(batches)
        waiting += time.perf_counter() - asked
        tokens += batch.tokens_BT.shape[1]
        trainer.train_step(batch)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)  # the optimizer's step comes after the read
    return Measured(steps, time.perf_counter() - started, waiting, tokens)


def numbers(measured: Measured, trainer: StageTrainer, teacher: Layout, peak: float | None) -> dict[str, Any]:
    pairs = measured.steps * trainer.stage.batch_size
    length = measured.tokens / measured.steps
    tflops = pairs * flops_of_pair(trainer.stage.layout, teacher, round(length)) / measured.seconds / 1e12
    on_gpu = trainer.device.type == "cuda"
    return {
        "batch": trainer.stage.batch_size,
        "parts_of": trainer.micro_batch or trainer.stage.batch_size,
        "text_length": round(length, 1),
        "data": "synthetic" if trainer.spec.data.train.shards == "synthetic" else "shards",
        "pairs_per_second": round(pairs / measured.seconds, 1),
        "ms_per_step": round(1000 * measured.seconds / measured.steps, 2),
        "waiting_share": round(measured.waiting / measured.seconds, 4),
        "tflops": float(f"{tflops:.3g}"),
        "mfu": round(tflops / peak, 4) if peak else None,
        "peak_memory_gb": round(torch.cuda.max_memory_allocated(trainer.device) / 1e9, 2) if on_gpu else None,
    }


def flops_of_pair(student: Layout, teacher: Layout, length: int) -> float:
    """Return the operations of one pair whose text has this many tokens."""

    def forward(layout: Layout) -> float:
        text = layout.text.model_copy(update={"context_length": length})
        return 2.0 * (image_macs(layout) + text_macs(layout.model_copy(update={"text": text})))

    return 3 * forward(student) + forward(teacher)


def peak_tflops(precision: str, device: torch.device) -> float | None:
    """Return the known peak of a device; None for one that is not known, as for CPUs."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peaks.get(precision) for known, peaks in PEAK_TFLOPS.items() if known in name), None)


def machine(device: torch.device) -> dict[str, Any]:
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda if accelerator else None}
    return {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}", "device": accelerator or "cpu", "cpu": hardware.cpu(), **versions}


def show(results: list[dict[str, Any]]) -> None:
    shown = ("preset", "precision", "compile", "checkpointing", "parts_of", "pairs_per_second", "mfu", "waiting_share")
    shown = (*shown, "peak_memory_gb")
    table = Table(title=f"training steps on {results[0]['device']}")
    for column in shown:
        table.add_column(column.replace("_", " "), justify="left" if column in shown[:2] else "right")
    for result in results:
        cells = ["" if result.get(column) is None else str(result[column]) for column in shown]
        table.add_row(*cells[:-1], result.get("error", cells[-1]))
    Console().print(table)


def _micro_batch(text: str) -> int | str | None:
    return None if text == "whole" else text if text == "auto" else int(text)


def _clear(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


if __name__ == "__main__":
    main()
