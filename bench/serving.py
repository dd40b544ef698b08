"""Compare the cost of serving with peers: `python bench/serving.py [--infinity PYTHON] [--only images labels …]`.

The model is a TinyCLIP-ViT-8M-16-Text-3M with random weights, which do not affect speed: 224 px, JPEGs of 500x375, one replica
with one compute thread. Peers run in the same minutes on the same weights: `infinity_emb` from the environment of `--infinity`,
Hugging Face's pipeline behind FastAPI, and the engine called directly. Prints a table with the ratios and their limits, and
writes each part into `--out` as soon as it is done; other parts in that file are kept. infinity's environment:

    python -m venv peers
    peers/bin/pip install 'infinity_emb[server,torch]==0.0.77' 'click<8.2' aiohttp 'optimum<2' 'transformers<4.49' torchvision
    python bench/serving.py --infinity peers/bin/python
"""

import argparse
import asyncio
import base64
import io
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware import cpu
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table
from serving_load import Answers, closed_loop, open_loop, until
from serving_models import write_hugging_face, write_open_clip
from serving_servers import Server, infinity, ours, pipeline
from tinyclip import Client
from tinyclip.schemas import DeploymentState
from tinyclip_workers.data.decoding import decode_square
from tinyclip_workers.engines.load import load_engine

RESULTS = Path(__file__).parent / "results" / "serving.json"
LABELS = [f"label number {i}" for i in range(1000)]
console = Console()


@dataclass(frozen=True)
class Line:
    """One measurement, compared with a peer's."""

    name: str
    ours: float
    theirs: float | None
    unit: str
    peer: str = ""
    limit: float | None = None
    """Upper limit of `ours / theirs`; without a peer, of `ours`."""
    is_minimum: bool = False
    """`limit` is a lower limit."""

    @property
    def value(self) -> float:
        return self.ours if self.theirs is None else self.ours / self.theirs

    @property
    def within_limit(self) -> bool | None:
        return None if self.limit is None else self.value >= self.limit if self.is_minimum else self.value <= self.limit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infinity", metavar="PYTHON", help="of an environment with infinity_emb; omit it to skip that peer")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--requests", type=int, default=400, help="requests of each load")
    parser.add_argument("--memory-requests", type=int, default=50_000)
    parser.add_argument("--tail-seconds", type=float, default=30)
    parser.add_argument("--updates", type=int, default=10, help="number of rolling updates")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tc-bench-") as folder:
        bench = Bench(Path(folder), arguments)
        return max([measure(bench, part) for part in arguments.only])


def measure(bench: "Bench", part: str) -> int:
    """Run, print and save one part; return 1 if it failed, so that the others still run."""
    try:
        lines = list(PARTS[part](bench))
    except Exception:
        console.print_exception()
        return 1
    show(lines)
    out: Path = bench.arguments.out
    known = json.loads(out.read_text()) if out.exists() else {}
    out.write_text(json.dumps({**known, part: _document(bench, lines)}, indent=1) + "\n")
    return 0


class Bench:
    """The models and images of the benchmark, and servers of them."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder, self.arguments, self.requests = folder, arguments, arguments.requests
        self.jpegs = [jpeg(seed) for seed in range(32)]
        self.model = write_open_clip(folder / "open_clip", self.jpegs)
        self.hugging_face = write_hugging_face(self.model, folder / "hf")
        self.engine = ""
        self.uris = ["data:image/jpeg;base64," + base64.b64encode(data).decode() for data in self.jpegs]

    @contextmanager
    def ours(self, **options: Any) -> Iterator[tuple[Server, Client]]:
        with (
            tempfile.TemporaryDirectory(prefix="tc-s-") as folder,
            ours(Path(folder), self.model, self.arguments.engine, **options) as found,
        ):
            report = found[1].deployments.open("bench").health()["engine_report"]
            self.engine = f"{report['engine']}, batches of up to {report['batch']}"
            yield found

    @contextmanager
    def infinity(self) -> Iterator[Server | None]:
        if self.arguments.infinity is None:
            yield None
            return
        with infinity(self.arguments.infinity, self.hugging_face) as server:
            yield server


def images(bench: Bench) -> Iterator[Line]:
    """CPU time of an image embedded over HTTP at concurrency 8."""
    bodies = [{"input": uri, "modality": "image", "model": "bench"} for uri in bench.uris]
    with bench.ours() as (server, _):
        mine = cpu_ms(server, "/embeddings", bodies, bench.requests)
    yield Line("image over HTTP, concurrency 8", mine, direct_ms(bench), "CPU ms", "decode + encode, called directly", 1.15)
    with bench.infinity() as server:
        if server is not None:
            theirs = cpu_ms(server, "/embeddings", bodies, bench.requests)
            yield Line("image over HTTP, concurrency 8", mine, theirs, "CPU ms", "infinity", 0.45)


def labels(bench: Bench) -> Iterator[Line]:
    """Many cached labels against few."""

    def bodies(count: int) -> list[dict[str, Any]]:
        return [{"image": uri, "labels": LABELS[:count]} for uri in bench.uris]

    with bench.ours() as (server, _):
        asyncio.run(closed_loop(server.url + "/zero-shot", bodies(1000)[:1], concurrency=1, requests=1))
        few, many = (cpu_ms(server, "/zero-shot", bodies(count), bench.requests) for count in (10, 1000))
    yield Line("1,000 cached labels", many, few, "CPU ms", "10 labels", 1.3)
    with pipeline(sys.executable, bench.hugging_face) as server:
        theirs = cpu_ms(server, "/zero-shot", bodies(1000), 16)
    yield Line("1,000 cached labels", many, theirs, "CPU ms", "Hugging Face pipeline")


def texts(bench: Bench) -> Iterator[Line]:
    """Uncached texts, at concurrency 32."""
    bodies = [{"input": f"a photo of thing number {i}", "modality": "text", "model": "bench"} for i in range(5 * bench.requests)]
    with bench.ours() as (server, _):
        mine = asyncio.run(closed_loop(server.url + "/embeddings", bodies, concurrency=32, requests=len(bodies)))
    with bench.infinity() as server:
        if server is not None:
            theirs = asyncio.run(closed_loop(server.url + "/embeddings", bodies, concurrency=32, requests=len(bodies)))
            yield Line("texts, concurrency 32", mine.rate, theirs.rate, "per second", "infinity", 1.0, is_minimum=True)
            return
    yield Line("texts, concurrency 32", mine.rate, None, "per second")


def tail(bench: Bench) -> Iterator[Line]:
    """Tail latency at 70% of the maximum throughput.

    Poisson arrivals queue on any server: with a constant service time (M/D/1) the p99 is 4.35 times the p50.
    """
    bodies = [{"input": uri, "modality": "image"} for uri in bench.uris]
    with bench.ours() as (server, _):
        url, seconds = server.url + "/embeddings", bench.arguments.tail_seconds
        rate = 0.7 * asyncio.run(closed_loop(url, bodies, concurrency=16, requests=bench.requests)).rate
        for arrivals, steady, limit in (("steady arrivals", True, 3.0), ("Poisson arrivals", False, None)):
            answers = asyncio.run(open_loop(url, bodies, rate=rate, seconds=seconds, steady=steady))
            expect_success(answers)
            p99, p50 = answers.percentile_ms(99), answers.percentile_ms(50)
            yield Line(f"p99 at 70% of saturation, {arrivals}", p99, p50, "ms", "p50", limit)


def updates(bench: Bench) -> Iterator[Line]:
    """Rolling updates under load."""
    rounds = bench.arguments.updates

    async def run(server: Server, client: Client) -> Answers:
        stop = asyncio.Event()
        bodies = [{"input": uri, "modality": "image"} for uri in bench.uris]
        load = asyncio.create_task(until(server.url + "/embeddings", bodies, stop, concurrency=4))
        try:
            for turn in range(rounds):
                version = f"bench@{2 - turn % 2}"
                await asyncio.to_thread(client.deployments.put, "bench", version, engine=bench.arguments.engine)
                deployment = await asyncio.to_thread(client.deployments.wait, "bench", timeout=240)
                if (deployment.state, deployment.serving) != (DeploymentState.READY, version):
                    raise RuntimeError(f"{deployment.serving} is {deployment.state}: {deployment.message}")
        finally:
            stop.set()
            answers = await load
        return answers

    with bench.ours(versions=2) as (server, client):
        answers = asyncio.run(run(server, client))
    total = len(answers.latencies) + answers.failures.total()
    name = f"failures of {total:,} requests over {rounds} rolling updates {dict(answers.failures) or ''}"
    yield Line(name, answers.failures.total(), None, "", limit=0)


def memory(bench: Bench) -> Iterator[Line]:
    """A replica's memory after many requests, one in ten with an image."""
    requests = bench.arguments.memory_requests
    bodies: list[dict[str, Any]] = [{"input": f"text number {i}", "modality": "text"} for i in range(9 * len(bench.uris))]
    bodies += [{"input": uri, "modality": "image"} for uri in bench.uris]
    with bench.ours() as (server, _):
        url = server.url + "/embeddings"
        expect_success(asyncio.run(closed_loop(url, bodies, concurrency=16, requests=requests // 5)))
        before = server.resident_bytes()
        expect_success(asyncio.run(closed_loop(url, bodies, concurrency=16, requests=requests - requests // 5)))
        after = server.resident_bytes()
    yield Line(f"memory after {requests:,} requests", after / 2**20, before / 2**20, "MiB", "after a fifth of them", 1.05)


PARTS: dict[str, Callable[[Bench], Iterator[Line]]] = {
    "images": images, "labels": labels, "texts": texts, "tail": tail, "updates": updates, "memory": memory,
}  # fmt: skip


def cpu_ms(server: Server, path: str, bodies: Sequence[Any], requests: int) -> float:
    """Return the CPU milliseconds of the server's processes per request at concurrency 8, after a warm-up."""
    expect_success(asyncio.run(closed_loop(server.url + path, bodies, concurrency=8, requests=max(8, requests // 5))))
    before = server.cpu_seconds()
    expect_success(asyncio.run(closed_loop(server.url + path, bodies, concurrency=8, requests=requests)))
    return 1000 * (server.cpu_seconds() - before) / requests


def direct_ms(bench: Bench) -> float:
    """Return the CPU milliseconds per image of decoding and encoding without a server, in batches of 8 on one thread."""
    torch.set_num_threads(1)
    engine = load_engine(str(bench.model), bench.arguments.engine)
    start, count = time.process_time(), 0
    while count < bench.requests:
        batch = [bench.jpegs[(count + i) % len(bench.jpegs)] for i in range(8)]
        engine.encode_image(np.stack([decode_square(data, engine.image_size) for data in batch]))
        count += len(batch)
    return 1000 * (time.process_time() - start) / count


def expect_success(answers: Answers) -> None:
    if answers.failures:
        raise RuntimeError(f"requests failed: {dict(answers.failures)}")


def jpeg(seed: int) -> bytes:
    """Return a JPEG of about 60 kB and 500x375 pixels: soft shapes with some noise, like a photograph."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
    noise = Image.fromarray(rng.integers(0, 256, (375, 500, 3), np.uint8)).filter(ImageFilter.GaussianBlur(0.8))
    file = io.BytesIO()
    Image.blend(soft, noise, 0.35).save(file, "JPEG", quality=90)
    return file.getvalue()


def show(lines: Sequence[Line]) -> None:
    table = Table("", "ours", "peer", "", "ratio", "limit", "within limit")
    for line in lines:
        theirs = f"{line.theirs:.1f} ({line.peer})" if line.theirs is not None else ""
        limit = "" if line.limit is None else f"{'>=' if line.is_minimum else '<='} {line.limit:g}"
        ratio = f"{line.value:.2f}" if line.theirs is not None else ""
        within = {True: "yes", False: "NO", None: ""}[line.within_limit]
        table.add_row(line.name, f"{line.ours:.1f}", theirs, line.unit, ratio, limit, within)
    console.print(table)


def _document(bench: Bench, lines: Sequence[Line]) -> dict[str, Any]:
    about = {"date": date.today().isoformat(), "command": " ".join(sys.argv), "cpu": cpu(), "python": platform.python_version()}
    about["engine"] = bench.engine
    return {**about, "lines": [{**asdict(line), "value": line.value, "within_limit": line.within_limit} for line in lines]}


if __name__ == "__main__":
    sys.exit(main())
