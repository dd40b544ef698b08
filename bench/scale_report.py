"""The numbers of `docs/scale.md`: computed from inputs, and from what `bench/scale.py` has measured."""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from tinyclip_workers.data.augment import VIEW
from tinyclip_workers.data.reinforcement.tensor_files import PAGE_BYTES
from tinyclip_workers.data.stream.loader import MAX_PROCESSES
from tinyclip_workers.data.stream.order import reader_count
from tinyclip_workers.model.layouts import PRESETS
from tinyclip_workers.model.summary import image_macs, state_shapes, text_macs
from tinyclip_workers.reinforcing.merging import part_count

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
BEGIN, END = "<!-- table: written by python bench/scale.py --report -->", "<!-- end of the table -->"
TEACHER, STUDENT = "ViT-B-32", "TinyCLIP-ViT-40M-32-Text-19M"


@dataclass(frozen=True)
class Inputs:
    """Assumptions, which `--set NAME=VALUE` changes."""

    samples: float = 400e6
    shards: float = 40_000
    sample_bytes: float = 30_000
    batch: float = 32_768
    gpus: float = 256
    gpus_per_node: float = 8
    views: float = 5
    captions: float = 1
    checkpoint_steps: float = 500
    get_dollars_per_million: float = 0.4
    dollars_per_tb_month: float = 23.0
    dollars_per_gpu_hour: float = 3.0
    peak_tflops: float = 989.0
    mfu: float = 0.3
    network_gb_per_second: float = 50.0
    """Of a GPU."""

    @classmethod
    def of(cls, changes: list[str]) -> "Inputs":
        """Raises SystemExit naming an input that there is not."""
        known = {field.name for field in fields(cls)}
        values = dict(change.split("=", 1) for change in changes)
        if unknown := sorted(set(values) - known):
            raise SystemExit(f"--set: there is no input {unknown[0]}; there are {', '.join(sorted(known))}")
        return replace(cls(), **{name: float(value) for name, value in values.items()})


class Row(NamedTuple):
    quantity: str
    value: str
    formula: str
    basis: str


def write(results: Path, changes: list[str]) -> None:
    """Write the table into the page; with changed inputs, print it."""
    table = render(results, Inputs.of(changes))
    if changes:
        print(table)
        return
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END, 1)[1]}")


def render(results: Path, inputs: Inputs) -> str:
    """Return the table, and a line with the inputs."""
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    measured = {line["kind"]: line for line in lines if line["kind"] != "order"}
    reading = next(line for line in lines if line["kind"] == "order" and not line["distinct"])
    given = ", ".join(f"`{name}` {value:,.10g}" for name, value in asdict(inputs).items())
    rows = [
        *_data(inputs, measured, reading), *_step(inputs, measured), *_reinforcement(inputs, measured, reading),
        *_cost(inputs, measured),
    ]  # fmt: skip
    head = ["| quantity | value | formula | basis |", "|---|---|---|---|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows), "", f"| inputs (assumed) |\n|---|\n| {given} |"])


def _data(i: Inputs, measured: dict[str, Any], reading: dict[str, Any]) -> list[Row]:
    stored, files, scan = i.samples * i.sample_bytes, measured["files"], measured["loader"]
    per_sample, rate = measured["registration"]["index_bytes_per_sample"], scan["images_per_cpu_second"]
    opened = (files["bytes"]["blocks.parquet"] + files["bytes"]["shards.parquet"]) / (files["shards"] * files["samples"])
    requests = (2 * _blocks(i, reading) + 2 * i.gpus) / 1e6
    ms, nodes = scan["scan_cpu_ms_per_sample"], i.gpus / i.gpus_per_node
    return [
        Row("shards stored, and read in an epoch", size(stored), "samples x sample_bytes",
            "computed; that each byte is read once is tested"),
        Row("storage of the shards", f"${stored / 1e12 * i.dollars_per_tb_month:,.0f} a month", "TB x price", "assumed price"),
        Row("index: samples", size(i.samples * per_sample), f"samples x {per_sample} B", "measured (caltech101)"),
        Row("index: shards and blocks, opened by all", size(opened * i.samples), "files, in proportion", "measured (synthetic)"),
        Row("index: values of `distinct_key`", size(8 * i.samples), "samples x 8 B", "computed"),
        Row("copies of the values", size(8 * i.samples * nodes), "one for each node", "computed"),
        Row("registration, scan", f"{i.samples * ms / 3.6e6:,.0f} CPU hours", f"samples x {ms} ms", "measured (29 KB images)"),
        Row("registration, decoding", f"{i.samples / rate / 3600:,.0f} CPU hours", f"samples / {rate:,.0f} a second",
            "assumed: as the loader"),
        Row("S3 requests of an epoch", f"{requests:,.1f} million", "2 x blocks + 2 x gpus", "computed from measured blocks"),
        Row("their price", f"${requests * i.get_dollars_per_million:,.2f}", "requests x price", "assumed price"),
    ]  # fmt: skip


def _step(i: Inputs, measured: dict[str, Any]) -> list[Row]:
    rate, weights = measured["loader"]["images_per_cpu_second"], parameters()
    live, stored = pairs_a_second(i, teacher=True), pairs_a_second(i, teacher=False)
    gathered = 4 * i.batch * PRESETS[STUDENT].embed_dim
    traffic = 4 * gathered + 2 * 2 * gathered + 2 * 4 * weights
    checkpoints = i.samples // i.batch // i.checkpoint_steps
    return [
        Row("pairs a second of a GPU, live teacher", f"{live:,.0f}", "mfu x peak / (6 x student + 2 x teacher MACs)",
            "assumed mfu"),
        Row("the same, stored embeddings", f"{stored:,.0f}", "mfu x peak / (6 x student MACs)", "assumed mfu"),
        Row("decode processes for them", f"{live / rate:,.0f} and {stored / rate:,.0f}", f"pairs a second / {rate:,.0f}",
            "measured (500x375)"),
        Row("loader processes that a worker uses", f"{_processes(i)}", f"the least of {MAX_PROCESSES} and readers / gpus",
            "computed from the code"),
        Row("pairs a second of a GPU with these", f"{_processes(i) * rate:,.0f}", f"processes x {rate:,.0f}", "measured rate"),
        Row("one matrix of similarities", size(4 * i.batch**2 / i.gpus), "4 x batch / gpus x batch", "computed"),
        Row("memory of the losses", size(_loss_memory(i, measured["losses"], i.gpus)), "matrices and gathered embeddings",
            "measured"),
        Row("the same on 8 GPUs", size(_loss_memory(i, measured["losses"], 8)), "matrices and gathered embeddings",
            "extrapolated"),
        Row("traffic of a step and GPU", size(traffic), "8 x batch x 512 fp32, and twice the gradients", "computed"),
        Row("time for it", f"{traffic / i.network_gb_per_second / 1e6:,.0f} ms", "traffic / network", "assumed network"),
        Row("checkpoint", size(12 * weights), f"12 B x {weights / 1e6:,.0f} million weights", "computed"),
        Row("checkpoints of an epoch", f"{checkpoints:,.0f}: {size(checkpoints * 12 * weights)}",
            "steps / checkpoint_steps", "computed"),
    ]  # fmt: skip


def _reinforcement(i: Inputs, measured: dict[str, Any], reading: dict[str, Any]) -> list[Row]:
    found, blocks = measured["reinforcement"], _blocks(i, reading)
    embeddings, parts = 2 * found["embed_dim"], part_count(int(i.samples * i.captions))
    images = i.samples * (i.views * (embeddings + 4 * len(VIEW)) + 5)
    texts = i.samples * i.captions * (embeddings + 28)
    return [
        Row("reinforcement: images", size(images), "samples x (views x (2 x 512 + 4 x 13) + 5) B",
            "computed; measured for one shard"),
        Row("reinforcement: texts, if all differ", size(texts), "samples x captions x (2 x 512 + 28) B",
            "computed; measured for one shard"),
        Row("read of it in an epoch", size(blocks * found["block_bytes"]), f"blocks x {size(found['block_bytes'])}",
            "measured (one caption)"),
        Row("requests for that", f"{blocks * found['block_requests'] / 1e6:,.1f} million",
            f"blocks x {found['block_requests']}", "measured"),
        Row("headers read to find equal texts", size(parts * i.shards * PAGE_BYTES), f"{parts} parts x shards x 256 KiB",
            "computed from the code"),
    ]  # fmt: skip


def _cost(i: Inputs, measured: dict[str, Any]) -> list[Row]:
    live, stored = pairs_a_second(i, teacher=True), pairs_a_second(i, teacher=False)
    loader = _processes(i) * measured["loader"]["images_per_cpu_second"]
    limits = {
        "live teacher, if GPUs are the limit": live, "stored embeddings, if GPUs are the limit": stored,
        "live teacher, with the loader above": min(live, loader), "stored embeddings, with the loader above": min(stored, loader),
    }  # fmt: skip
    rows = []
    for name, rate in limits.items():
        hours = i.samples / rate / 3600
        value = f"{hours:,.1f} GPU hours, ${hours * i.dollars_per_gpu_hour:,.0f}"
        rows.append(Row(f"epoch, {name}", value, "samples / pairs a second", "assumed mfu and price"))
    return [*rows, Row("most that stored embeddings gain", f"{stored / live:.2f} times", "ratio of the MACs", "computed")]


def _processes(i: Inputs) -> int:
    return max(1, min(MAX_PROCESSES, int(reader_count(int(i.batch)) // i.gpus)))


def _loss_memory(i: Inputs, losses: dict[str, Any], gpus: float) -> float:
    """Return the matrices (batch / gpus, batch), and what is left of the measured peak: gathered embeddings (batch, 512)."""
    matrices, size_128 = losses["fp32_matrices"], 4 * 128 * losses["global_batch"]
    gathered = losses["peak_bytes"]["128"] - matrices * size_128
    return float(matrices * 4 * i.batch**2 / gpus + gathered * i.batch / losses["global_batch"])


def _blocks(i: Inputs, reading: dict[str, Any]) -> float:
    return float(i.samples * i.sample_bytes / (reading["read"]["bytes"] / reading["read"]["blocks"]))


def macs(name: str) -> int:
    return image_macs(PRESETS[name]) + text_macs(PRESETS[name])


def pairs_a_second(i: Inputs, *, teacher: bool) -> float:
    return i.mfu * i.peak_tflops * 1e12 / (2 * (3 * macs(STUDENT) + teacher * macs(TEACHER)))


def parameters() -> int:
    return sum(math.prod(shape) for shape in state_shapes(PRESETS[STUDENT]).values())


def size(count: float) -> str:
    """Return a number of bytes in decimal units."""
    for unit, factor in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:,.3g} {unit}"
    return f"{count / 1e3:,.3g} KB"
